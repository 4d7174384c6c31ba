"""What goes into one merged tensor, and what can be known of it before any recipe."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from mergelib.merging.fast.interpolation import cosine
from mergelib.merging.fast.masks import Mask, ranks, uniforms
from mergelib.merging.fast.memory import Kept
from mergelib.merging.plan import PlannedTensor


class Memory:
    """What is remembered from one recipe to the next.

    Attributes:
        kept: tensors, as many as fit.
        sums: the last sum of magnitudes of each kind, with the limit of its mask.
    """

    def __init__(self, limit: int) -> None:
        """Remember nothing yet, and never more than `limit` bytes of tensors."""
        self.kept = Kept(limit)
        self.sums: dict[tuple[Any, ...], tuple[float, float]] = {}


class Sources:
    """The sources of one tensor as rows on the device.

    Tensors are known by where they lie in memory-mapped files, which stay open: recipes may take
    one layer from anywhere, so that a name says nothing.
    """

    def __init__(
        self, tensor: PlannedTensor, memory: Memory, device: torch.device, kernels: Any
    ) -> None:
        """Bring the sources to the device; a CPU reads them through their memory maps."""
        self._memory = memory
        self._device = device
        self._kernels = kernels
        self._places: dict[str, int] = {}
        self._rows: dict[str, torch.Tensor] = {}
        for model, source in zip(tensor.models, tensor.sources, strict=True):
            if source is not None:
                self._places[model] = source.data_ptr()
                self._rows[model] = self._on_device(source)
        self.size = next(iter(self._rows.values())).numel()

    def _on_device(self, source: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cpu":
            return source.reshape(-1)
        key = ("source", source.data_ptr())
        return self._memory.kept.get(key, lambda: source.reshape(-1).to(self._device))

    def parts(self, models: Sequence[str], part: slice) -> list[torch.Tensor]:
        """The same part of several models' rows, in one type that the kernels take."""
        rows = [self._rows[model][part] for model in models]
        return rows if self._alike(models) else [row.float() for row in rows]

    def cosine(self, one: str, other: str) -> torch.Tensor:
        """The cosine of the angle between two models' rows."""
        return self._known("cosine", (one, other), lambda: cosine(*self._of(one, other)))

    def ranks(self, base: str, model: str) -> torch.Tensor:
        """The ranks of a task vector's elements by magnitude: 4 bytes an element."""

        def compute() -> torch.Tensor:
            start, end = self._of(base, model)
            return ranks(end.float() - start.float())

        return self._known("ranks", (base, model), compute)

    def uniforms(self, seed: int) -> torch.Tensor:
        """Uniform numbers from a seed, one an element: 4 bytes each."""
        key = ("uniforms", seed, self.size)
        return self._memory.kept.get(key, lambda: uniforms(seed, self.size, self._device))

    def absolute_sum(self, base: str, model: str, mask: Mask | None, mask_seed: int) -> float:
        """The sum of a task vector's magnitudes, or of those that a mask keeps.

        Args:
            base: the model that the task vector starts from.
            model: the one that it leads to.
            mask: what to add up; None for everything.
            mask_seed: what tells the mask's numbers from others of the same task vector.
        """
        limit = 1.0 if mask is None else mask.limit
        key = (mask is None, self._places[base], self._places[model], mask_seed)
        known = self._memory.sums.get(key)
        if known is None or known[0] != limit:
            total = sum(
                self._kernels.absolute_sum(
                    *self.parts((base, model), part), mask and mask.chunk(part.start, part.stop)
                )
                for part in self.chunks()
            )
            known = self._memory.sums[key] = (limit, total)
        return known[1]

    def in_one(self) -> bool:
        """Whether all elements may be handed over at once, without a copy being made of them."""
        return bool(self._kernels.ONE_PASS) and self._alike(list(self._rows))

    def chunks(self) -> Iterator[slice]:
        """The elements in parts of the kernels' size."""
        for start in range(0, self.size, self._kernels.CHUNK):
            yield slice(start, min(start + self._kernels.CHUNK, self.size))

    def _alike(self, models: Sequence[str]) -> bool:
        kinds = {self._rows[model].dtype for model in models}
        return len(kinds) == 1 and kinds <= set(self._kernels.NATIVE)

    def _of(self, *models: str) -> list[torch.Tensor]:
        return [self._rows[model] for model in models]

    def _known(
        self, what: str, models: Sequence[str], compute: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        return self._memory.kept.get((what, *(self._places[model] for model in models)), compute)
