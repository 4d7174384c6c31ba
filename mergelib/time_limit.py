"""How long a candidate may take: held from inside, as a thread cannot be interrupted."""

import time
from collections.abc import Mapping, Sequence
from typing import Self

from mergelib.errors import TooSlow
from mergelib.search import Search


class TimeLimit:
    """A clock that runs from its making on."""

    def __init__(self, seconds: float, what: str) -> None:
        """Start.

        Args:
            seconds: how long.
            what: what is to be done by then.
        """
        self._end = time.monotonic() + seconds
        self._line = f"{what} took longer than {seconds:g} s (compute.seconds_per_candidate)"

    @classmethod
    def of_merge(cls, search: Search, asked: Mapping[str, Sequence[str]]) -> Self | None:
        """The limit of one evaluation of a merge, which begins now; None where there is none.

        Args:
            search: says how long a candidate may take for the anchor items.
            asked: the items of each benchmark; more of them have more time.
        """
        seconds = search.compute.seconds_per_candidate
        if seconds is None:
            return None
        items = sum(map(len, asked.values()))
        anchors = search.fitness.items * len(asked)
        return cls(seconds * max(1.0, items / anchors), f"{items} items")

    def check(self) -> None:
        """Go on only in time.

        Raises:
            TooSlow: time is up.
        """
        if time.monotonic() > self._end:
            raise TooSlow(self._line)
