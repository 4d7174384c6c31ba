"""The fast backend: recipes of the common methods, written into a resident model in place."""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from mergelib.errors import MergeError
from mergelib.merging.fast import compiled, device
from mergelib.merging.fast.interpolation import cosine, linear, slerp
from mergelib.merging.fast.masks import Mask, ranks, uniforms
from mergelib.merging.fast.memory import Kept, affordable
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

Write = Callable[[slice, torch.Tensor], Finite]
"""Writes the elements of a slice to a float32 tensor."""

logger = logging.getLogger(__name__)


class FastMerger:
    """Merges recipes of the common methods into a resident model.

    Held to mergekit's results to the bit, except where task vectors are rescaled (DARE): mergekit
    adds up their elements in float32, this in float64, and the results agree to 1e-6.
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
        self._kernels = compiled if self._device.type == "cpu" else device
        self.kept = Kept(affordable(self._device) if limit is None else limit)
        self._sums: dict[tuple[str, str, str], tuple[float, float]] = {}

    def write(self, recipe: Recipe) -> None:
        """Overwrite the resident model with a merge.

        Raises:
            MergeError: the recipe cannot be merged, or a tensor has values that are not finite.
        """
        plan = self._mergekit.plan(recipe)
        before = self.kept.left_out
        with self._resident.rewriting() as model:
            ordinary = []
            for tensor in plan.tensors:
                if recipe.method in FAST_METHODS and _is_ordinary(tensor):
                    target = model.target(tensor.name, tensor.sources[0].shape)  # type: ignore[union-attr]
                    if target is not None:
                        ordinary.append((tensor, target))
                elif (merged := self._mergekit.execute(plan, tensor)) is not None:
                    model.write(tensor.name, merged)
            names = [tensor.name for tensor, _ in ordinary]
            written = self._each(lambda pair: self._merge(plan, *pair), ordinary)
            for name, finite in zip(names, written, strict=True):
                if not finite:
                    raise MergeError(not_finite(name))
        if self.kept.left_out > before == 0:
            logger.warning(
                "what merges have in common does not fit in %.1f GiB and is in part computed for "
                "each candidate; more memory, or compute.cache_gib, makes merging faster",
                self.kept.limit / 2**30,
            )

    def check(self, recipe: Recipe) -> None:
        """Hold the resident model, into which a recipe was just written, to mergekit's arithmetic.

        The first, the middle and the last tensor are merged again by mergekit.

        Raises:
            MergeError: a value differs by more than rounding can explain.
        """
        plan = self._mergekit.plan(recipe)
        count = len(plan.tensors)
        for number in sorted({0, count // 2, count - 1}):
            tensor = plan.tensors[number]
            expected = self._mergekit.execute(plan, tensor)
            merged = self._resident.parameter(tensor.name)
            if expected is None or merged is None:
                continue
            step = max(torch.finfo(expected.dtype).eps, 1e-6) * expected.abs().max()
            if ((merged.cpu().float() - expected.float()).abs() > step).any():
                raise MergeError(
                    f"tensor {tensor.name} is not what mergekit makes of it; please report this, "
                    "and set compute.merging: mergekit"
                )

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
    def _merge(self, plan: Plan, tensor: PlannedTensor, target: torch.Tensor) -> Finite:
        """Merge one tensor into its place, a chunk at a time."""
        write = self._writer(plan.recipe.method, tensor)
        flat, size = target.view(-1), self._kernels.CHUNK
        # bfloat16 is rounded by the kernels; a second pass over the chunk does the same for others.
        later = tensor.out_dtype not in (None, torch.float32, torch.bfloat16)
        finite: list[Finite] = []
        for start in range(0, flat.numel(), size):
            part = flat[start : start + size]
            direct = part.dtype is torch.float32
            out = part if direct else torch.empty_like(part, dtype=torch.float32)
            finite.append(write(slice(start, start + part.numel()), out))
            if later:
                out.copy_(out.to(tensor.out_dtype))
                finite.append(torch.isfinite(out).all())
            if not direct:
                part.copy_(out)
        return all(finite) if self._device.type == "cpu" else torch.stack(finite).all()  # type: ignore[arg-type]

    def _writer(self, method: str, tensor: PlannedTensor) -> Write:
        """What writes a chunk of a tensor, with all that concerns the whole tensor worked out."""
        sources = {
            model: self._on_device(source)
            for model, source in zip(tensor.models, tensor.sources, strict=True)
            if source is not None
        }
        kernels = self._kernels
        rounding = torch.bfloat16 if tensor.out_dtype is torch.bfloat16 else None
        if method == "linear":
            mean = linear(tensor)
            return lambda part, out: kernels.linear(
                self._chunks(sources.values(), part), *mean, rounding, out
            )
        base = sources.pop(str(tensor.base))
        if method == "slerp":
            (other,) = sources.values()
            key = ("cosine", base.data_ptr(), other.data_ptr())
            arc = slerp(tensor.shared["t"], self.kept.get(key, lambda: cosine(base, other)))
            return lambda part, out: kernels.interpolate(
                self._chunks((base, other), part), arc.weights, rounding, out
            )
        combined = combination(
            method,
            tensor,
            lambda model: self._numbers(method, tensor, model, base, sources[model]),
            lambda model, mask: self._absolute_sum(tensor, model, base, sources[model], mask),
        )

        def write(part: slice, out: torch.Tensor) -> Finite:
            start, *others = self._chunks((base, *sources.values()), part)
            masks = [mask and mask.chunk(part.start, part.stop) for mask in combined.masks]
            finite: Finite = kernels.task_vectors(
                start,
                others,
                masks,
                combined.weights,
                combined.elect,
                combined.divisor,
                combined.scale,
                rounding,
                out,
            )
            return finite

        return write

    def _on_device(self, source: torch.Tensor) -> torch.Tensor:
        """A source as one row on the device; a CPU reads it through its memory map."""
        if self._device.type == "cpu":
            return source.reshape(-1)
        key = ("source", source.data_ptr())
        return self.kept.get(key, lambda: source.reshape(-1).to(self._device))

    def _chunks(self, sources: Iterable[torch.Tensor], part: slice) -> list[torch.Tensor]:
        """The same part of each source, in one type that the kernels take."""
        parts = [source[part] for source in sources]
        kinds = {chunk.dtype for chunk in parts}
        alike = len(kinds) == 1 and kinds <= set(self._kernels.NATIVE)
        return parts if alike else [chunk.float() for chunk in parts]

    def _numbers(
        self,
        method: str,
        tensor: PlannedTensor,
        model: str,
        base: torch.Tensor,
        source: torch.Tensor,
    ) -> torch.Tensor:
        """A model's ranks or uniform numbers for a tensor: 4 bytes an element."""
        sparsity = SPARSITY[method]
        if sparsity is not None and sparsity.ranked:
            key = ("ranks", base.data_ptr(), source.data_ptr())
            return self.kept.get(key, lambda: ranks(source.float() - base.float()))
        seed = self._mergekit.mask_seed(model, tensor.name)
        key = ("uniforms", seed, source.numel())
        return self.kept.get(key, lambda: uniforms(seed, source.numel(), self._device))

    def _absolute_sum(
        self,
        tensor: PlannedTensor,
        model: str,
        base: torch.Tensor,
        source: torch.Tensor,
        mask: Mask | None,
    ) -> float:
        """The sum of a task vector's magnitudes; the last sum of its kind is remembered."""
        kind = "all" if mask is None else "masked"
        limit = 1.0 if mask is None else mask.limit
        key = (kind, model, tensor.name)
        known = self._sums.get(key)
        if known is None or known[0] != limit:
            total = sum(
                self._kernels.absolute_sum(
                    *self._chunks((base, source), part), mask and mask.chunk(part.start, part.stop)
                )
                for part in _parts(source.numel(), self._kernels.CHUNK)
            )
            known = self._sums[key] = (limit, total)
        return known[1]


def _parts(size: int, chunk: int) -> Iterator[slice]:
    for start in range(0, size, chunk):
        yield slice(start, min(start + chunk, size))


def _is_ordinary(tensor: PlannedTensor) -> bool:
    """Whether a tensor is made of like tensors of all its models, in float32."""
    sources = [source for source in tensor.sources if source is not None]
    kinds = {source.dtype for source in sources}
    return (
        len(sources) == len(tensor.sources) > 0
        and len({source.shape for source in sources}) == 1
        and kinds <= set(_FLOATS)
        and (tensor.dtype is torch.float32 or (tensor.dtype is None and kinds == {torch.float32}))
        and tensor.out_dtype in (None, *_FLOATS)
    )
