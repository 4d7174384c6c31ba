"""Weighted means: linear (Wortsman et al. 2022) and slerp (Shoemake 1985)."""

from typing import NamedTuple

import torch

from mergelib.merging.plan import PlannedTensor

_CHUNK = 1 << 20
"""Mergekit sums norms and dot products in chunks of this size: so do we, for the same bits."""

_COLLINEAR = 0.9995
"""Mergekit's limit: above it the angle is too small to divide by its sine."""

_SMALLEST_NORM = 1e-8


class WeightedSum(NamedTuple):
    """A tensor as a weighted sum of its sources, divided where there is a divisor."""

    weights: tuple[float, ...]
    divisor: float | None


def linear(tensor: PlannedTensor) -> WeightedSum:
    """The sum that mergekit's `linear` makes, divided by the weights' sum where it normalises."""
    weights = torch.tensor([[tensor.each[m]["weight"] for m in tensor.models]], dtype=torch.float32)
    divisor = float(weights.sum(dim=1)) if tensor.shared["normalize"] else None
    return WeightedSum(tuple(weights[0].tolist()), divisor)


def cosine(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The cosine of the angle between two tensors, all their elements taken as one vector.

    Args:
        one: (n,).
        other: (n,).

    Returns:
        A float32 scalar in [-1, 1].
    """
    lengths = []
    for vector in (one, other):
        parts = [
            torch.linalg.vector_norm(c.float()[None], dim=1) for c in torch.split(vector, _CHUNK)
        ]
        length = torch.linalg.vector_norm(torch.stack(parts), dim=0)
        lengths.append(torch.where(length > _SMALLEST_NORM, length, 1))
    products = [
        ((a.float() / lengths[0]) * (b.float() / lengths[1]))[None].sum(dim=1)
        for a, b in zip(torch.split(one, _CHUNK), torch.split(other, _CHUNK), strict=True)
    ]
    return torch.stack(products).sum(dim=0).clamp(-1, 1)[0]


def slerp(t: float, cosine: torch.Tensor) -> WeightedSum:
    """The weights of two tensors on the arc between them (Shoemake 1985, section 3.3).

    Args:
        t: position on the arc: 0 for the first tensor, 1 for the second.
        cosine: of the angle between them; where they are all but parallel, the arc is a line.
    """
    position = torch.tensor(t, dtype=torch.float32)
    straight = cosine.cpu()
    if straight.abs() > _COLLINEAR:
        return WeightedSum((float(1 - position), float(position)), None)
    angle = torch.acos(straight)
    sine = torch.sin(angle)
    weights = torch.sin((1 - position) * angle) / sine, torch.sin(position * angle) / sine
    return WeightedSum((float(weights[0]), float(weights[1])), None)
