"""What work takes, and what the hardware could do at best: clocks, matrix products, copies."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from mergelib.benchmarks.products import product

_GEMM = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of a matrix product that is large enough to reach the device's best rate."""


class Timed(NamedTuple):
    """Seconds of some work, and what came of it."""

    wall: float
    cpu: float
    result: Any

    def own(self, device: str) -> float:
        """Seconds by the clock that other work on the machine disturbs least, see `busy`."""
        return self.cpu if device == "cpu" else self.wall


def timed(work: Callable[[], Any]) -> Timed:
    """Do some work once."""
    start = clocks()
    result = work()
    wall, cpu = (clocks() - start).tolist()
    return Timed(wall, cpu, result)


def clocks() -> torch.Tensor:
    """Seconds on the wall and of processors, from any start, when a GPU has done what it was told.

    A GPU works on while Python goes on; nobody has waited for the last of it yet.
    """
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)


def busy(device: str) -> Callable[[], float]:
    """The clock that other work on the machine disturbs least: of processors, or a GPU's wall."""
    return lambda: Timed(*clocks().tolist(), None).own(device)


def gemm_rate(device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations in a second of one large matrix product, the best of torch's."""
    size = _GEMM[torch.device(device).type]
    layer = nn.Linear(size, size, bias=False, device=device, dtype=dtype).requires_grad_(False)
    states = torch.randn(size, size, device=device, dtype=dtype)
    ways: list[Callable[[], Any]] = [lambda: layer(states)]
    if device == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available():
        ways.append(lambda: product(layer, states))
    clock = busy(device)

    def once(way: Callable[[], Any]) -> float:
        start = clock()
        way()
        return clock() - start

    return 2 * size**3 / min(once(way) for way in ways for _ in range(7))


def bandwidth(device: str = "cpu") -> float:
    """Bytes a second, read and written, of a copy larger than any cache."""
    source = torch.zeros(1 << (26 if device == "cpu" else 30), device=device)
    target = torch.empty_like(source)
    times = [timed(lambda: target.copy_(source)).wall for _ in range(8)]
    return 2 * source.nbytes / statistics.median(times[1:])
