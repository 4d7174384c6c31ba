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
    sparsity: Sparsity | None,
    tensor: PlannedTensor,
    size: int,
    *,
    ranks: Callable[[str], torch.Tensor],
    uniforms: Callable[[str], torch.Tensor],
    absolute_sum: Callable[[str, Mask | None], float],
) -> Combination:
    """Resolve a method's settings for one tensor.

    Args:
        sparsity: what the method does to each task vector.
        tensor: what goes into it.
        size: its number of elements, n.
        ranks: gives a model's task vector's ranks, (n,).
        uniforms: gives a model's uniform numbers, (n,).
        absolute_sum: of a model's task vector, of the part that a mask keeps.
    """

    def mask(model: str) -> Mask | None:
        density = tensor.each[model]["density"]
        if sparsity is None or density >= 1:
            return None
        if sparsity.ranked:
            # At least one element is kept, unless none is asked for.
            kept = Mask(ranks(model), max(1, int(density * size)) if density > 0 else 0)
        else:
            kept = Mask(uniforms(model), density)
        if not tensor.shared["rescale"]:
            return kept
        before, after = absolute_sum(model, None), absolute_sum(model, kept)
        return kept if min(before, after) < _SMALLEST_SUM else kept._replace(scale=before / after)

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
