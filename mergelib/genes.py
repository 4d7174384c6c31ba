"""What spaces of recipes are made of: the layers of a model, and the dimensions of a genome."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mergelib.errors import InputError

Genome = list[float]

_DECIMALS = 6
"""Decoded values are rounded, so that equal recipes are recognised across machines."""

_NOT_QUITE_ONE = 1 - 2**-53


@dataclass(frozen=True)
class LayerNames:
    """How an architecture names the tensors of its layers.

    Attributes:
        prefix: what comes before the layer's number, such as "model.layers.".
        count: how many layers there are.
        names: the names of all tensors.
    """

    prefix: str
    count: int
    names: tuple[str, ...]

    @classmethod
    def find(cls, names: Iterable[str]) -> "LayerNames":
        """Find the layers among a checkpoint's tensor names.

        Raises:
            InputError: no name holds a layer's number.
        """
        names = tuple(names)
        numbered = [m for name in names if (m := re.match(r"(.*?\.|)(\d+)\.", name))]
        if not numbered:
            raise InputError("base: no tensor's name holds a layer's number (model.layers.0. ...)")
        prefix = Counter(m[1] for m in numbered).most_common(1)[0][0]
        count = 1 + max(int(m[2]) for m in numbered if m[1] == prefix)
        return cls(prefix, count, names)


@dataclass(frozen=True)
class Gene:
    """One dimension of a space.

    Attributes:
        parameter: mergekit's name of the parameter.
        model: position of the endpoint that it belongs to; None where all models share it.
        tensors: the filter of its set of tensors; None for all the rest.
        group: position of its group of layers, from the first layer on.
        low: the value at 0.
        high: the value at 1.
        step: only whole steps above `low` are values; None for every value.
        whole: whether values are whole numbers.
    """

    parameter: str
    model: int | None
    tensors: str | None
    group: int
    low: float
    high: float
    step: float | None = None
    whole: bool = False

    @property
    def _levels(self) -> int:
        assert self.step is not None
        return 1 + round((self.high - self.low) / self.step)

    def value(self, position: float) -> float:
        """The parameter's value at a position in [0, 1].

        With a step, each value has an equal part of [0, 1], the ends' no smaller than the others'.
        """
        if self.step is None:
            value = round(self.low + position * (self.high - self.low), _DECIMALS)
        else:
            level = int(min(position, _NOT_QUITE_ONE) * self._levels)
            value = round(self.low + level * self.step, _DECIMALS)
        # Adding zero turns -0.0, which JSON tells from 0.0, into 0.0.
        value = min(self.high, max(self.low, value)) + 0.0
        return int(value) if self.whole else value

    def position(self, value: float) -> float:
        """Where in [0, 1] a value lies, with a step in the middle of its part.

        Values out of range go to the nearer end.
        """
        if self.step is None:
            return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        level = min(self._levels - 1, max(0, round((value - self.low) / self.step)))
        return (level + 0.5) / self._levels
