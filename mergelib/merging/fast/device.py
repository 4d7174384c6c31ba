"""Merge arithmetic in torch: what `mergelib.merging.fast.compiled` does, on a GPU.

The functions and their arguments are the same; see there. They return a tensor instead of a bool,
so that nothing waits for the GPU before the whole model is written; `streamed` is of no concern.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch

from mergelib.merging.fast.masks import Mask

CHUNK = 1 << 24
"""Elements handed over at a time: float32 copies of them take 64 MiB each."""

ONE_PASS = False
"""Each operation makes a copy of what it is handed."""

NATIVE = (torch.bfloat16, torch.float16, torch.float32)
"""Types that are read where they lie."""

WRITTEN = (torch.bfloat16, torch.float32)
"""Types that results are written in at once."""


def linear(
    sources: Sequence[torch.Tensor],
    weights: Sequence[float],
    divisor: float | None,
    rounding: torch.dtype | None,
    streamed: bool,
    out: torch.Tensor,
) -> torch.Tensor:
    """Write sum(weight * source), divided where there is a divisor."""
    total = torch.zeros_like(out, dtype=torch.float32)
    for source, weight in zip(sources, weights, strict=True):
        total.addcmul_(source.float(), _scalar(weight, out.device))
    if divisor is not None:
        # By a number, a GPU would multiply by its reciprocal.
        total.div_(_scalar(divisor, out.device))
    return _finish(total, rounding, out)


def interpolate(
    sources: Sequence[torch.Tensor],
    weights: Sequence[float],
    rounding: torch.dtype | None,
    streamed: bool,
    out: torch.Tensor,
) -> torch.Tensor:
    """Write weight * source + weight * source of two, each product rounded."""
    one, other = (
        source.float().mul(weight) for source, weight in zip(sources, weights, strict=True)
    )
    return _finish(one.add_(other), rounding, out)


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
) -> torch.Tensor:
    """Write base + scale * combined, combined of the weighted and masked differences to it."""
    origin = base.float()
    parts = [
        _part(origin, source, mask).mul_(weight)
        for source, mask, weight in zip(sources, masks, weights, strict=True)
    ]
    total = torch.zeros_like(origin)
    for part in parts:
        total.add_(part)
    if elect:
        signs = torch.where(total >= 0, 1.0, -1.0)
        total.zero_()
        summed = torch.zeros_like(total)
        for part, weight in zip(parts, weights, strict=True):
            agrees = part.mul(signs) > 0
            total.add_(part.mul_(agrees))
            summed.add_(agrees, alpha=weight)
        if divisor is not None:
            total.div_(summed.masked_fill_(summed == 0, 1.0))
    elif divisor is not None:
        total.div_(_scalar(divisor, out.device))
    if scale != 1:
        total.mul_(scale)
    return _finish(origin.add_(total), rounding, out)


@lru_cache(maxsize=1024)
def _scalar(value: float, device: torch.device) -> torch.Tensor:
    """A number on the device; most tensors of a merge have the same few, and each is waited for."""
    return torch.tensor(value, dtype=torch.float32, device=device)


def absolute_sum(base: torch.Tensor, source: torch.Tensor, mask: Mask | None) -> float:
    """The sum of |source - base| over the elements that a mask keeps."""
    return float(_part(base.float(), source, mask).abs_().sum(dtype=torch.float64))


def _part(origin: torch.Tensor, source: torch.Tensor, mask: Mask | None) -> torch.Tensor:
    """A masked and scaled task vector."""
    part = source.float() - origin
    if mask is not None:
        part.mul_(mask.numbers < mask.limit)
        if mask.scale != 1:
            part.mul_(mask.scale)
    return part


def _finish(total: torch.Tensor, rounding: torch.dtype | None, out: torch.Tensor) -> torch.Tensor:
    """Write the result, rounded; returns whether all of it is finite."""
    out.copy_(total if rounding is None else total.to(rounding))
    return torch.isfinite(out).all()
