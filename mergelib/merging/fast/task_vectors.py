"""Sums of task vectors, with mergekit's options.

Task arithmetic (Ilharco et al. 2023), TIES (Yadav et al. 2023) and DARE (Yu et al. 2024).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from mergelib.merging.fast.masks import Mask
from mergelib.merging.plan import PlannedTensor

_SMALLEST_SUM = 1e-7
"""Mergekit leaves a task vector unscaled where it, or what is kept of it, adds up to less."""


class Sparsity(NamedTuple):
    """What a method does to each task vector before they are added up.

    Attributes:
        ranked: keep the largest elements; else a random share.
        elect: leave out the elements whose sign has the smaller total.
    """

    ranked: bool
    elect: bool


SPARSITY: dict[str, Sparsity | None] = {
    "task_arithmetic": None,
    "ties": Sparsity(ranked=True, elect=True),
    "dare_ties": Sparsity(ranked=False, elect=True),
    "dare_linear": Sparsity(ranked=False, elect=False),
}
"""The methods of this family; None for one that keeps everything."""


class Combination(NamedTuple):
    """How the task vectors of one tensor are combined.

    Attributes:
        models: whose task vectors; all but the base.
        masks: what is kept of each; None for all of it.
        weights: one each.
        elect: leave out the elements whose sign has the smaller total.
        divisor: of the sum; None for none.
        scale: of the whole sum.
    """

    models: tuple[str, ...]
    masks: tuple[Mask | None, ...]
    weights: tuple[float, ...]
    elect: bool
    divisor: float | None
    scale: float


def combination(
    method: str,
    tensor: PlannedTensor,
    numbers: Callable[[str], torch.Tensor],
    absolute_sum: Callable[[str, Mask | None], float],
) -> Combination:
    """Resolve a method's settings for one tensor.

    Args:
        method: one of `SPARSITY`.
        tensor: what goes into it.
        numbers: gives a model's ranks or uniform numbers, (n,), for this tensor.
        absolute_sum: of a model's task vector, of the part that a mask keeps.
    """
    sparsity = SPARSITY[method]
    size = next(source.numel() for source in tensor.sources if source is not None)

    def mask(model: str) -> Mask | None:
        density = tensor.each[model]["density"]
        if sparsity is None or density >= 1:
            return None
        if sparsity.ranked:
            # At least one element is kept, unless none is asked for.
            count = max(1, int(density * size)) if density > 0 else 0
            kept = Mask(numbers(model), count)
        else:
            kept = Mask(numbers(model), density)
        if not tensor.shared["rescale"] or (sparsity.ranked and density <= 0):
            return kept
        before, after = absolute_sum(model, None), absolute_sum(model, kept)
        if min(before, after) < _SMALLEST_SUM:
            return kept
        return kept._replace(scale=before / after)

    models = tuple(model for model in tensor.models if model != tensor.base)
    weights = torch.tensor([tensor.each[m]["weight"] for m in models], dtype=torch.float32)
    divisor = float(weights.sum(dim=0)) if tensor.shared["normalize"] else None
    return Combination(
        models=models,
        masks=tuple(mask(model) for model in models),
        weights=tuple(weights.tolist()),
        elect=sparsity is not None and sparsity.elect,
        divisor=divisor,
        scale=tensor.shared["lambda"],
    )
