"""Merge arithmetic on a CPU, compiled by numba: one pass over memory.

Held to the bit to torch's arithmetic as mergekit uses it: float32 throughout, in the same order,
and a multiplication and an addition are fused only where torch fuses them (`addcmul`). Written in
chunks of torch, the same takes more than twice as long: torch walks through the cache once for
each operation (docs/merging.md has the measurement).

Tensors are one-dimensional, bfloat16 or float32; `mergelib.merging.fast.device` has the same
functions for a GPU.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mergelib.merging.fast import loops, weighted_sums
from mergelib.merging.fast.masks import Mask

CHUNK = 1 << 20
"""Elements handed over at a time: what must be converted first takes a few MiB, not a model."""

ONE_PASS = True
"""Nothing of a tensor's size is made on the way: what is read where it lies may be of any size."""

NATIVE = (torch.bfloat16, torch.float32)
"""Types that are read where they lie; others are converted chunk by chunk."""

WRITTEN = (torch.float32,)
"""Types that results are written in at once."""


def linear(
    sources: Sequence[torch.Tensor],
    weights: Sequence[float],
    divisor: float | None,
    rounding: torch.dtype | None,
    streamed: bool,
    out: torch.Tensor,
) -> bool:
    """Write sum(weight * source), divided where there is a divisor.

    Args:
        sources: (n,) each, of one type.
        weights: one a source.
        divisor: of the sum; None for none.
        rounding: bfloat16 to round the result to it; None to leave it.
        streamed: whether to store the result past the caches: faster, unless it is soon read again.
        out: (n,), float32.

    Returns:
        Whether all written values are finite.
    """
    divided, by = divisor is not None, np.float32(1 if divisor is None else divisor)
    settings = divided, by, _rounds(rounding), streamed
    return bool(weighted_sums.linear(_arrays(sources), _floats(weights), *settings, out.numpy()))


def interpolate(
    sources: Sequence[torch.Tensor],
    weights: Sequence[float],
    rounding: torch.dtype | None,
    streamed: bool,
    out: torch.Tensor,
) -> bool:
    """Write weight * source + weight * source of two, each product rounded; see `linear`."""
    settings = _rounds(rounding), streamed
    whole = weighted_sums.interpolate(_arrays(sources), _floats(weights), *settings, out.numpy())
    return bool(whole)


def task_vectors(
    base: torch.Tensor,
    sources: Sequence[torch.Tensor],
    masks: Sequence[Mask | None],
    weights: Sequence[float],
    elect: bool,
    divisor: float | None,
    scale: float,
    rounding: torch.dtype | None,
    out: torch.Tensor,
) -> bool:
    """Write base + scale * combined, combined of the weighted and masked differences to the base.

    Args:
        base: (n,), of the sources' type.
        sources: (n,) each, of one type.
        masks: what is kept of each source's difference to the base; None for all of it.
        weights: one a source.
        elect: sum only the differences that have the sign of the total, zero counted as positive
            (TIES, Yadav et al. 2023, steps 2 and 3).
        divisor: of the sum; None for none. With `elect`, each element's sum is divided by the
            weights that it is made of, whatever number is given here.
        scale: of the whole sum (mergekit's lambda).
        rounding: bfloat16 to round the result to it; None to leave it.
        out: (n,), float32.

    Returns:
        Whether all written values are finite.
    """
    start, *rest = _arrays([base, *sources])
    numbers, limits = _mask_arrays(masks)
    scales = _floats([1.0 if mask is None else mask.scale for mask in masks])
    divided, by = divisor is not None, np.float32(1 if divisor is None else divisor)
    settings = (limits, scales, _floats(weights), elect, divided, by, np.float32(scale))
    both_masked = len(rest) == 2 and None not in masks
    loop = loops.two_masked if both_masked else loops.task_vectors
    return bool(loop(start, tuple(rest), numbers, settings, _rounds(rounding), out.numpy()))


def absolute_sum(base: torch.Tensor, source: torch.Tensor, mask: Mask | None) -> float:
    """The sum of |source - base| over the elements that a mask keeps, exact to a millionth."""
    start, end = _arrays([base, source])
    numbers, limits = _mask_arrays([mask])
    return float(loops.absolute_sum(start, end, numbers[0], limits[0]))


# What numba takes ---------------------------------------------------------------------------------


def _array(tensor: torch.Tensor) -> Any:
    """A tensor's memory as numpy has it: bfloat16, which it has not, as bits."""
    return (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _arrays(tensors: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    return tuple(_array(tensor) for tensor in tensors)


def _floats(values: Sequence[float]) -> Any:
    return np.array(values, np.float32)


def _rounds(rounding: torch.dtype | None) -> bool:
    return rounding is torch.bfloat16


def _mask_arrays(masks: Sequence[Mask | None]) -> tuple[tuple[Any, ...], Any]:
    """Each mask's numbers, none of them where all is kept, and its limit in the same type."""
    kind = next((mask.numbers.dtype for mask in masks if mask is not None), torch.float32)
    everything = Mask(torch.empty(0, dtype=kind), 0)
    numbers = tuple((mask or everything).numbers.numpy() for mask in masks)
    return numbers, np.array([(mask or everything).limit for mask in masks], numbers[0].dtype)
