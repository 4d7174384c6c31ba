"""The fast backend: recipes of the common methods, written into a resident model in place."""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

from mergelib.errors import MergeError
from mergelib.merging.fast import compiled, device
from mergelib.merging.fast.interpolation import linear, slerp
from mergelib.merging.fast.memory import Kept, affordable
from mergelib.merging.fast.sources import Memory, Sources
from mergelib.merging.fast.task_vectors import SPARSITY, combination
from mergelib.merging.mergekit import MergekitMerger, not_finite
from mergelib.merging.plan import Plan, PlannedTensor
from mergelib.merging.resident import ResidentModel
from mergelib.recipes import Recipe

FAST_METHODS = frozenset({"linear", "slerp", *SPARSITY})
"""The methods that are merged here; the others are left to mergekit's own arithmetic."""

_FLOATS = (torch.bfloat16, torch.float16, torch.float32)

Finite = bool | torch.Tensor
"""Whether what was written is finite; on a GPU a tensor, for which nothing has waited yet."""

Write = Callable[[slice, bool, torch.Tensor], Finite]
"""Writes the elements of a slice to a float32 tensor; past the caches where told so."""

_SMALL = 1 << 22
"""A tensor of so many elements is merged by mergekit within about a second."""

_FEW = 0.01
"""The share of values that may round to a neighbour, where magnitudes are added up otherwise."""

_AHEAD = 8
"""Threads that compute ahead, at most: each takes memory for a tensor of its own."""

logger = logging.getLogger(__name__)


class FastMerger:
    """Merges recipes of the common methods into a resident model.

    Held to mergekit's results to the bit, except where task vectors are rescaled (DARE): the order
    in which their magnitudes are added up is another, and the results agree to 1e-6.

    Attributes:
        kernels: the arithmetic: compiled for a CPU, torch's own on a GPU.
    """

    def __init__(
        self, mergekit: MergekitMerger, resident: ResidentModel, limit: int | None = None
    ) -> None:
        """Keep nothing yet.

        Args:
            mergekit: plans recipes, and merges the tensors that are out of the ordinary.
            resident: is written into.
            limit: how many bytes may be kept of what does not depend on the recipe; what does not
                fit is computed for each recipe. By default half of the memory that is free.
        """
        self._mergekit = mergekit
        self._resident = resident
        self._device = resident.device
        self.kernels = compiled if self._device.type == "cpu" else device
        self._memory = Memory(affordable(self._device) if limit is None else limit)
        # For each method, how much was kept when its last merge began.
        self._settled: dict[str, int] = {}

    @property
    def kept(self) -> Kept:
        """What is computed once: its size, and what did not fit."""
        return self._memory.kept

    def write(self, recipe: Recipe) -> None:
        """Overwrite the resident model with a merge.

        Raises:
            MergeError: the recipe cannot be merged, or a tensor has values that are not finite.
        """
        plan = self._mergekit.plan(recipe)
        all_fitted = self.kept.left_out == 0
        with self._resident.rewriting() as model:
            ordinary = []
            for tensor in plan.tensors:
                sources = _alike(tensor) if recipe.method in FAST_METHODS else []
                if sources:
                    target = model.target(tensor.name, sources[0].shape)
                    if target is not None:
                        ordinary.append((tensor, target))
                elif (merged := self._mergekit.execute(plan, tensor)) is not None:
                    model.write(tensor.name, merged)
            self._compute_ahead(plan, [tensor for tensor, _ in ordinary])
            written = self._each(lambda pair: self._merge(plan, *pair), ordinary)
            for (tensor, _), finite in zip(ordinary, _known(written), strict=True):
                if not finite:
                    raise MergeError(not_finite(tensor.name))
        if all_fitted and self.kept.left_out:
            logger.warning(
                "what merges have in common does not fit in %.1f GiB and is in part computed for "
                "each candidate; more memory, or compute.cache_gib, makes merging faster",
                self.kept.limit / 2**30,
            )

    def check(self, recipe: Recipe) -> None:
        """Hold the resident model, into which a recipe was just written, to mergekit's arithmetic.

        The smallest vector, the smallest matrix and the largest tensor that takes no second are
        merged again by mergekit. Rounding alone may move a value by one step, and few values.

        Raises:
            MergeError: values differ by more than rounding can explain.
        """
        plan = self._mergekit.plan(recipe)
        for tensor, merged in self._sample(plan):
            expected = self._mergekit.execute(plan, tensor)
            if expected is None:
                continue
            value, truth = merged.cpu().float(), expected.float()
            step = max(torch.finfo(expected.dtype).eps * 1.01, 1e-6)
            tiny = 1e-6 * truth.abs().max()
            far = (value - truth).abs() > step * truth.abs() + tiny
            moved = (value - truth).abs() > tiny
            if far.any() or moved.float().mean() > _FEW:
                raise MergeError(
                    f"tensor {tensor.name} is not what mergekit makes of it; please report this, "
                    "and set compute.merging: mergekit"
                )

    def _sample(self, plan: Plan) -> list[tuple[PlannedTensor, torch.Tensor]]:
        found = [(tensor, self._resident.parameter(tensor.name)) for tensor in plan.tensors]
        by_size = sorted(
            ((t, p) for t, p in found if p is not None), key=lambda pair: pair[1].numel()
        )
        vectors = [pair for pair in by_size if pair[1].ndim == 1]
        matrices = [pair for pair in by_size if pair[1].ndim > 1]
        largest = [pair for pair in matrices[1:] if pair[1].numel() <= _SMALL]
        return [*vectors[:1], *matrices[:1], *largest[-1:]]

    def _each(
        self,
        merge: Callable[[tuple[PlannedTensor, torch.Tensor]], Finite],
        tensors: Iterable[tuple[PlannedTensor, torch.Tensor]],
    ) -> list[Finite]:
        """Merge tensors side by side, in as many threads as torch would use."""
        threads = torch.get_num_threads()
        if self._device.type != "cpu" or threads == 1:
            return [merge(tensor) for tensor in tensors]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(merge, tensors))

    @torch.no_grad()
    def _compute_ahead(self, plan: Plan, tensors: Iterable[PlannedTensor]) -> None:
        """Let processors work out what a GPU merge keeps, side by side, when there may be more.

        Ranks and uniform numbers come from processors, a tensor from one of them: one alone takes
        minutes for billions of parameters. What does not fit is not worth it.
        """
        before = self.kept.size
        if self.kernels is compiled or self._settled.get(plan.recipe.method) == before:
            return
        self._settled[plan.recipe.method] = before

        def compute(tensor: PlannedTensor) -> None:
            if not self.kept.left_out:
                sources = Sources(tensor, self._memory, self._device, self.kernels)
                self._writer(plan.recipe.method, tensor, sources)

        with ThreadPoolExecutor(min(torch.get_num_threads(), _AHEAD)) as pool:
            for _ in pool.map(compute, tensors):
                pass

    @torch.no_grad()
    def _merge(self, plan: Plan, tensor: PlannedTensor, target: torch.Tensor) -> Finite:
        """Merge one tensor into its place, a chunk at a time."""
        sources = Sources(tensor, self._memory, self._device, self.kernels)
        write = self._writer(plan.recipe.method, tensor, sources)
        flat = target.view(-1)
        exported = flat.dtype is tensor.out_dtype and flat.dtype in self.kernels.WRITTEN
        direct = flat.dtype is torch.float32 or exported
        # bfloat16 is rounded by the kernels; a second pass over the chunk does the same for others.
        later = tensor.out_dtype not in (None, torch.float32, torch.bfloat16)
        # Nobody reads soon what is written here for good: it is of no use in a cache.
        final = direct and not later
        whole = [slice(0, sources.size)] if final and sources.in_one() else None
        finite: list[Finite] = []
        for part in whole or sources.chunks():
            place = flat[part]
            out = place if direct else torch.empty_like(place, dtype=torch.float32)
            finite.append(write(part, final, out))
            if later:
                out.copy_(out.to(tensor.out_dtype))
                finite.append(torch.isfinite(out).all())
            if not direct:
                place.copy_(out)
        if len(finite) == 1:
            return finite[0]
        if self._device.type == "cpu":
            return all(finite)
        return torch.stack([torch.as_tensor(part) for part in finite]).all()

    def _writer(self, method: str, tensor: PlannedTensor, sources: Sources) -> Write:
        """What writes a chunk of a tensor, with all that concerns the whole tensor worked out."""
        kernels = self.kernels
        rounding = torch.bfloat16 if tensor.out_dtype is torch.bfloat16 else None
        if method == "linear":
            mean = linear(tensor)
            return lambda part, streamed, out: kernels.linear(
                sources.parts(tensor.models, part), *mean, rounding, streamed, out
            )
        base = str(tensor.base)
        if method == "slerp":
            (other,) = (model for model in tensor.models if model != base)
            arc = slerp(tensor.shared["t"], sources.cosine(base, other))
            return lambda part, streamed, out: kernels.interpolate(
                sources.parts((base, other), part), arc.weights, rounding, streamed, out
            )

        def seed(model: str) -> int:
            return self._mergekit.mask_seed(model, tensor.name)

        combined = combination(
            SPARSITY[method],
            tensor,
            sources.size,
            ranks=lambda model: sources.ranks(base, model),
            uniforms=lambda model: sources.uniforms(seed(model)),
            absolute_sum=lambda model, mask: sources.absolute_sum(base, model, mask, seed(model)),
        )

        def write(part: slice, _streamed: bool, out: torch.Tensor) -> Finite:
            start, *others = sources.parts((base, *combined.models), part)
            masks = [mask and mask.chunk(part.start, part.stop) for mask in combined.masks]
            settings = combined.weights, combined.elect, combined.divisor, combined.scale
            finite: Finite = kernels.task_vectors(start, others, masks, *settings, rounding, out)
            return finite

        return write


def _known(written: list[Finite]) -> list[bool]:
    """Which tensors are finite; of a GPU's answers, all are waited for together."""
    if all(isinstance(finite, bool) for finite in written):
        return written  # type: ignore[return-value]
    known: list[bool] = torch.stack([torch.as_tensor(finite) for finite in written]).tolist()
    return known


def _alike(tensor: PlannedTensor) -> list[torch.Tensor]:
    """A tensor's sources, one a model, if they are alike and merged in float32; else none."""
    sources = [source for source in tensor.sources if source is not None]
    kinds = {source.dtype for source in sources}
    float32 = tensor.dtype is torch.float32 or (tensor.dtype is None and kinds == {torch.float32})
    alike = (
        len(sources) == len(tensor.sources)
        and len({source.shape for source in sources}) == 1
        and kinds <= set(_FLOATS)
        and tensor.out_dtype in (None, *_FLOATS)
    )
    return sources if alike and float32 else []
