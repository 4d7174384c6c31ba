"""Texts that grow by a token at a time, each in a row of its own."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mergelib.benchmarks.answers import Meter
from mergelib.benchmarks.columns import sharing
from mergelib.benchmarks.decoder import Decoder
from mergelib.benchmarks.prefixes import SMALLEST_BEGINNING, Layout, Span, Tokens, lay_out

_ALIGNED = 8
"""Kernels on GPUs want masks whose rows begin at multiples of this."""


@dataclass(frozen=True)
class RowPlan:
    """Prompts, and how they come into rows, aligned on the right; the same for any weights.

    Attributes:
        layout: how the prompts go through the model at first.
        shared: how many tokens all prompts begin with that are kept apart from the rows.
        filled: the most tokens that a prompt has beside those.
        capacity: how many columns the rows have.
        sources: for each pack, the numbers of its prompts [n], and the pack's columns
            [n, filled] that fill their rows.
        missing: [prompts], how many columns on the left of each row hold nothing.
    """

    layout: Layout
    shared: int
    filled: int
    capacity: int
    sources: list[tuple[torch.Tensor, torch.Tensor]]
    missing: torch.Tensor


def plan_rows(
    decoder: Decoder,
    prompts: Sequence[Tokens],
    most: int,
    capacity: int,
    least: int = SMALLEST_BEGINNING,
) -> RowPlan:
    """Plan rows for prompts.

    Args:
        decoder: the model.
        prompts: their tokens.
        most: how many tokens will be added to each at most.
        capacity: how many tokens of prompts go through the model together.
        least: a common beginning is kept apart from this length on.
    """
    device = decoder.device
    layout = lay_out([Span(prompt, 1) for prompt in prompts], capacity, device)
    shared = layout.trunk if decoder.shares and layout.trunk >= least else 0
    filled = max(map(len, prompts)) - shared
    sources = []
    for number in range(len(layout.packs)):
        rows = [n for n, place in enumerate(layout.places) if place.pack == number]
        index = np.zeros((len(rows), filled), dtype=np.int64)
        for line, row in zip(index, rows, strict=True):
            columns = layout.places[row].columns[shared:]
            line[filled - len(columns) :] = columns
        sources.append((torch.tensor(rows, device=device), torch.from_numpy(index).to(device)))
    return RowPlan(
        layout=layout,
        shared=shared,
        filled=filled,
        capacity=-(-(filled + most) // _ALIGNED) * _ALIGNED,
        sources=sources,
        missing=torch.tensor([filled + shared - len(p) for p in prompts], device=device),
    )


class Rows:
    """Rows of one plan, while tokens are added."""

    def __init__(self, decoder: Decoder, plan: RowPlan, meter: Meter) -> None:
        """Start with empty rows.

        Args:
            decoder: the model.
            plan: the prompts.
            meter: counts what goes through the model.
        """
        self._decoder = decoder
        self._plan = plan
        self._meter = meter
        self._cache = decoder.cache(plan.capacity)
        self._missing = plan.missing
        columns = torch.arange(plan.capacity, device=decoder.device)
        self._columns = columns
        self._seen = (columns >= plan.missing[:, None])[:, None, None]
        self._filled = plan.filled

    def read_prompts(self) -> torch.Tensor:
        """Let the prompts go through the model; logits [rows, vocabulary] of the next tokens."""
        plan = self._plan
        packed = self._decoder.cache(plan.layout.columns)
        count = len(plan.missing)
        first: list[Any] = [None] * count
        for pack, (rows, index) in zip(plan.layout.packs, plan.sources, strict=True):
            logits = self._decoder.read(pack, packed)
            self._meter.count(pack.tokens.shape[1], pack.depths)
            for row in rows.tolist():
                first[row] = logits[int(plan.layout.places[row].rows[0])]
            for source, target in zip(packed.layers, self._cache.layers, strict=True):
                target.take(source, rows, index, count, plan.shared)
        return torch.stack(first)

    def add(self, tokens: Sequence[int]) -> torch.Tensor:
        """Add a token to each row; logits [rows, vocabulary] of the next tokens."""
        positions = self._plan.shared + self._filled - self._missing
        self._filled += 1
        seen, distance = self._seen[..., : self._filled], None
        if self._decoder.has_window:
            distance = self._filled - 1 - self._columns[: self._filled]
        added = torch.tensor(tokens, device=self._missing.device)[:, None]
        shared = sharing(self._decoder.config) if self._plan.shared else nullcontext()
        with shared:
            logits = self._decoder.forward(
                added, positions[:, None], self._decoder.mask(seen, distance), self._cache
            )
        self._meter.count(len(tokens), float(positions.sum()) + len(tokens) / 2)
        return logits[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but some."""
        kept = torch.tensor(rows, device=self._missing.device)
        for layer in self._cache.layers:
            layer.keep(kept)
        self._seen, self._missing = self._seen[kept], self._missing[kept]
