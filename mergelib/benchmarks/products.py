"""Products of float32 activations with weights, by oneDNN where torch's own choice is slow.

On x86 processors torch multiplies float32 matrices with MKL, which leaves half of the arithmetic
units of processors that are not Intel's unused (docs/answering.md has the measurement). oneDNN,
which torch brings along as well, uses them. Sums are formed in another order: results agree to
float32's rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_LEAST = 1 << 20
"""Multiplications below which oneDNN's set-up of a call, some 10 microseconds, is not worth it."""

_CPUINFO = Path("/proc/cpuinfo")


class Products:
    """The linear layers of a model, whose products may be computed by oneDNN."""

    def __init__(self, model: Any) -> None:
        """Find the layers.

        Args:
            model: of transformers; layers of other kinds than torch's own are left alone.
        """
        self._layers: list[nn.Linear] = []
        if model.device.type == "cpu" and model.dtype == torch.float32 and _is_faster():
            self._layers = [m for m in model.modules() if _is_plain(m)]

    @contextmanager
    def quick(self) -> Iterator[None]:
        """Let the layers compute with oneDNN meanwhile; otherwise they are as they were."""
        for layer in self._layers:
            layer.forward = partial(product, layer)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward


def product(layer: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    """What a linear layer makes of states.

    Args:
        layer: float32, on a CPU.
        states: [..., in], float32.

    Returns:
        [..., out], float32.
    """
    if states.numel() * layer.out_features < _LEAST:
        return functional.linear(states, layer.weight, layer.bias)
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        states, layer.weight, layer.bias, "none", [], ""
    )
    return result


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is a linear layer as torch has it.

    Subclasses, of layers or of their weights, have an arithmetic of their own, and so have layers
    whose forward pass somebody else has replaced.
    """
    return (
        type(module) is nn.Linear
        and type(module.weight.data) is torch.Tensor
        and "forward" not in vars(module)
    )


@cache
def _is_faster() -> bool:
    """Whether oneDNN is there, and beats what torch would take.

    Goes by the kind of processor, and not by a measurement, so that a machine always computes the
    same way.
    """
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and _CPUINFO.is_file()
        and "GenuineIntel" not in _CPUINFO.read_text("utf-8", errors="replace")
    )
