"""The item bank: how hard each item is and how sharply it separates models.

The model is the two-parameter logistic one with a single ability (Birnbaum, 1968),
p = sigmoid(alpha * gamma - beta), so a difficulty beta is an intercept, in logits. A bank may also
hold D > 1 discriminations an item, p = sigmoid(alpha . gamma - beta) (Reckase, 2009).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from mergelib.errors import InputError

FloatArray = NDArray[np.float64]

_COLUMNS = ("discrimination", "difficulty", "discrimination_se", "difficulty_se")


@dataclass(frozen=True, eq=False)
class ItemBank:
    """The items' parameters, p(right | gamma) = sigmoid(discrimination . gamma - difficulty).

    Attributes:
        items: (I,) identifiers, all different.
        discrimination: alpha, logits per standard deviation of ability: (I,), above 0, with one
            dimension; (I, D) of any sign with D > 1.
        difficulty: (I,) beta, logits.
        discrimination_se: standard errors of alpha, of its shape; NaN where unknown.
        difficulty_se: (I,) standard errors of beta; NaN where unknown.

    Raises:
        InputError: an identifier occurs twice, a length differs from the number of items, a
            parameter is not finite, or the only discrimination of an item is not above 0.
    """

    items: tuple[str, ...]
    discrimination: FloatArray
    difficulty: FloatArray
    discrimination_se: FloatArray
    difficulty_se: FloatArray

    def __post_init__(self) -> None:
        check_items(self.items)
        count = len(self.items)
        wide = np.shape(self.discrimination)[1:]
        dimensions = wide if len(wide) == 1 and wide[0] > 1 else ()
        for name in _COLUMNS:
            values = np.array(getattr(self, name), dtype=np.float64)
            shape = (count, *dimensions) if name.startswith("discrimination") else (count,)
            if values.shape != shape:
                raise InputError(
                    f"item bank: {name} has shape {values.shape}, not {shape}: "
                    "give one number for each item, and each dimension where there are several"
                )
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        single = self.dimensions == 1
        _refuse_first(self.items, "discrimination", self.discrimination, positive=single)
        _refuse_first(self.items, "difficulty", self.difficulty, positive=False)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def dimensions(self) -> int:
        """D, how many abilities a model has."""
        return 1 if self.discrimination.ndim == 1 else self.discrimination.shape[1]

    def probability(self, ability: FloatArray) -> FloatArray:
        """Probability of a right answer to every item.

        Args:
            ability: (...) abilities gamma, (..., D) with D > 1; NaN gives NaN.

        Returns:
            (..., I) probabilities.
        """
        gamma = np.asarray(ability, dtype=np.float64)
        if self.discrimination.ndim == 1:
            z = self.discrimination * gamma[..., None]
        else:
            z = gamma @ self.discrimination.T
        p: FloatArray = expit(z - self.difficulty)
        return p

    def to_table(self) -> Any:
        """Return a pyarrow Table: item_id, and one double column for each parameter.

        With D > 1, discrimination and its standard error are fixed-size lists of D doubles. One
        ability in lists of one number, which a table of several banks may hold, is read too.
        """
        columns: dict[str, Any] = {"item_id": pa.array(self.items, pa.string())}
        for name in _COLUMNS:
            values = getattr(self, name)
            column = pa.array(values.ravel(), pa.float64())
            if values.ndim == 2:
                column = pa.FixedSizeListArray.from_arrays(column, self.dimensions)
            columns[name] = column
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: Any) -> "ItemBank":
        """Read a bank back from a table that `to_table` wrote; other columns are ignored.

        Args:
            table: a pyarrow Table.

        Raises:
            InputError: a column is missing, or the values are no item bank.
        """
        missing = [name for name in ("item_id", *_COLUMNS) if name not in table.column_names]
        if missing:
            raise InputError(
                f"item bank: no column {', '.join(missing)}; "
                f"expected item_id, {', '.join(_COLUMNS)}"
            )
        parameters = {name: _column(table, name) for name in _COLUMNS}
        return cls(items=tuple(map(str, table.column("item_id").to_pylist())), **parameters)


def _column(table: Any, name: str) -> FloatArray:
    column = table.column(name)
    try:
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            values = np.array(column.to_pylist(), dtype=np.float64).reshape(table.num_rows, -1)
            return values[:, 0] if values.shape[1:] == (1,) else values
        return np.asarray(column.to_numpy(), dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"item bank: {name} does not hold numbers, or lists of equally many numbers"
        ) from None


def check_items(items: tuple[str, ...]) -> None:
    """Refuse identifiers that occur twice with an `InputError`."""
    item, count = Counter(items).most_common(1)[0] if items else ("", 0)
    if count > 1:
        raise InputError(f"items: {item!r} occurs {count} times; identifiers must differ")


def _refuse_first(items: tuple[str, ...], name: str, values: FloatArray, *, positive: bool) -> None:
    bad = ~np.isfinite(values) | ((values <= 0) if positive else False)
    if bad.any():
        i, *_ = cell = tuple(np.argwhere(bad)[0])
        limit = "a finite number above 0" if positive else "a finite number"
        raise InputError(f"item bank: {name} of {items[i]!r} is {values[cell]}, not {limit}")
