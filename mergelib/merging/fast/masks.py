"""Which elements of a task vector a merge keeps: the largest, or a random share."""

from typing import NamedTuple

import torch


class Mask(NamedTuple):
    """Keeps the elements whose number is below a limit.

    Attributes:
        numbers: (n,): ranks by magnitude, from 0 for the largest on; or uniform in [0, 1).
        limit: a count of elements, or a probability.
        scale: what the kept elements are multiplied by.
    """

    numbers: torch.Tensor
    limit: float
    scale: float = 1.0

    def chunk(self, start: int, stop: int) -> "Mask":
        """The mask of a part of the elements."""
        return self._replace(numbers=self.numbers[start:stop])


def ranks(task_vector: torch.Tensor) -> torch.Tensor:
    """The rank of each element by magnitude, 0 for the largest.

    TIES keeps the k largest (Yadav et al. 2023, step 1). Mergekit takes the first k of an argsort
    that leaves equal elements in an order of its own; `rank < k` keeps the very same ones for any
    k, since the ranks come from the same argsort; on the CPU, since a GPU's leaves them otherwise.

    Args:
        task_vector: (n,), float32.

    Returns:
        (n,), int32; int64 where that is too small.
    """
    order = torch.argsort(task_vector.abs().cpu(), descending=True)
    size = order.numel()
    kind = torch.int32 if size <= torch.iinfo(torch.int32).max else torch.int64
    result = torch.empty(size, dtype=kind)
    result[order] = torch.arange(size, dtype=kind)
    return result.to(task_vector.device)


def uniforms(seed: int, size: int, device: torch.device) -> torch.Tensor:
    """Uniform numbers in [0, 1): torch.bernoulli keeps where they are below the probability.

    They are drawn on the CPU whatever the device, so that a seed gives the same masks on any.

    Returns:
        (size,), float32.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, generator=generator).to(device)
