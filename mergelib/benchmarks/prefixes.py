"""Token sequences that begin alike, laid out so that each common beginning is computed once.

The sequences form a tree of tokens. What all of them begin with is the *trunk*; the rest is laid
out in *packs* of limited size, each of which goes through the model in one row behind the trunk.
A token sees its ancestors in the tree and nothing else, and its position is its depth.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch

Tokens = tuple[int, ...]
T = TypeVar("T")


class Span(NamedTuple):
    """Tokens that go through the model, and those of its outputs that are asked for.

    Attributes:
        tokens: the model's input; at least 1.
        reads: how many of the last tokens' outputs are asked for; from 1 to all.
    """

    tokens: Tokens
    reads: int


@dataclass(frozen=True)
class Pack:
    """Tokens that go through the model in one row, behind the trunk or with it.

    Columns are places in the cache: the trunk's first, then the pack's own.

    Attributes:
        start: the first column that this pack fills: 0 for the first, which holds the trunk as
            well; the trunk's length for all others.
        tokens: [1, columns - start].
        positions: [columns], the depth of each column's token.
        ends: [columns], the first column past the descendants of each column's token; columns are
            in depth-first order.
        reads: [n], which of the pack's own tokens are read, counted from `start`.
        depths: sum over the pack's own tokens of their depths, plus a half each.
    """

    start: int
    tokens: torch.Tensor
    positions: torch.Tensor
    ends: torch.Tensor
    reads: torch.Tensor
    depths: float

    def visible(self) -> torch.Tensor:
        """Which columns [columns] each of the pack's own tokens [columns - start] sees."""
        columns = torch.arange(len(self.ends), device=self.ends.device)
        own = columns[self.start :, None]
        return (columns <= own) & (own < self.ends)


class Place(NamedTuple):
    """Where a span has gone.

    Attributes:
        pack: the pack's number.
        columns: [tokens], the column of each token.
        rows: [reads], where the outputs lie among those that are read of the pack.
    """

    pack: int
    columns: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Layout:
    """Spans laid out in packs.

    Attributes:
        trunk: how many tokens all spans begin with.
        packs: in the order in which they go through the model.
        places: where each span has gone.
    """

    trunk: int
    packs: list[Pack]
    places: list[Place]

    @property
    def columns(self) -> int:
        """How many columns a cache needs."""
        return max(len(pack.positions) for pack in self.packs)


def lay_out(spans: Sequence[Span], capacity: int, device: torch.device) -> Layout:
    """Lay spans out behind their common beginning.

    Args:
        spans: at least 1.
        capacity: how many tokens a pack may add to the trunk; one span alone may be longer.
        device: where the tensors go.
    """
    order = sorted(range(len(spans)), key=lambda n: spans[n].tokens)
    # The first and the last in order share what all share. What is read belongs to the packs.
    trunk = common(spans[order[0]].tokens, spans[order[-1]].tokens)
    trunk = min([trunk, *(len(span.tokens) - span.reads for span in spans)])
    packs: list[Pack] = []
    places: list[Place | None] = [None] * len(spans)
    draft = _Draft(spans[order[0]].tokens[:trunk], start=0)

    def close() -> None:
        for n, place in draft.places(len(packs)):
            places[n] = place
        packs.append(draft.finish(device))

    for n in order:
        tokens = spans[n].tokens
        shared = common(tokens, draft.last)
        if draft.spans and draft.added + len(tokens) - shared > capacity:
            close()
            draft = _Draft(tokens[:trunk], start=trunk)
            shared = trunk
        draft.add(n, spans[n], shared)
    close()
    return Layout(trunk, packs, [place for place in places if place is not None])


SMALLEST_BEGINNING = 32
"""A beginning of fewer tokens costs more to keep apart than to compute again."""


def gather(groups: Iterable[list[T]], tokens: Callable[[T], Tokens]) -> list[list[T]]:
    """Put groups together whose members begin with little in common.

    Args:
        groups: the texts of each benchmark; a benchmark's few-shot prompts begin alike.
        tokens: of a text.

    Returns:
        Each group that begins with `SMALLEST_BEGINNING` tokens or more, and one of all others.
    """
    apart, rest = [], []
    for group in groups:
        ordered = sorted(map(tokens, group))
        if ordered and common(ordered[0], ordered[-1]) >= SMALLEST_BEGINNING:
            apart.append(group)
        else:
            rest += group
    return [*apart, rest] if rest else apart


def common(one: Tokens, other: Tokens) -> int:
    """How many tokens two sequences begin with in common."""
    least = min(len(one), len(other))
    if one[:least] == other[:least]:
        return least
    low, high = 0, least - 1
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class _Draft:
    """A pack while spans are added to it in sorted order."""

    def __init__(self, trunk: Tokens, start: int) -> None:
        self.trunk = len(trunk)
        self.start = start
        self.last = trunk
        self.spans: list[tuple[int, int, np.ndarray]] = []
        self._tokens = list(trunk)
        self._positions = list(range(len(trunk)))
        self._ends: list[int | None] = [None] * len(trunk)
        self._path = list(range(len(trunk)))

    @property
    def added(self) -> int:
        return len(self._tokens) - self.trunk

    def add(self, number: int, span: Span, shared: int) -> None:
        """Add a span of which the last one has the first `shared` tokens."""
        here = len(self._tokens)
        for column in self._path[shared:]:
            self._ends[column] = here
        fresh = span.tokens[shared:]
        self._tokens += fresh
        self._positions += range(shared, len(span.tokens))
        self._ends += [None] * len(fresh)
        self._path = self._path[:shared] + list(range(here, here + len(fresh)))
        self.last = span.tokens
        self.spans.append((number, span.reads, np.array(self._path)))

    def _read_columns(self) -> np.ndarray:
        return np.unique(np.concatenate([columns[-reads:] for _, reads, columns in self.spans]))

    def places(self, pack: int) -> list[tuple[int, Place]]:
        read = self._read_columns()
        return [
            (number, Place(pack, columns, np.searchsorted(read, columns[-reads:])))
            for number, reads, columns in self.spans
        ]

    def finish(self, device: torch.device) -> Pack:
        columns = len(self._tokens)
        ends = [columns if end is None else end for end in self._ends]
        own = self._positions[self.start :]
        return Pack(
            start=self.start,
            tokens=torch.tensor([self._tokens[self.start :]], device=device),
            positions=torch.tensor(self._positions, device=device),
            ends=torch.tensor(ends, device=device),
            reads=torch.from_numpy(self._read_columns() - self.start).to(device),
            depths=float(sum(own)) + len(own) / 2,
        )
