"""What a search maximises: scores on benchmarks become the optimiser's fitness."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.errors import SearchError
from mergelib.sections.objectives import Constraint

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Goals:
    """The objectives and constraints of a search.

    Attributes:
        names: all benchmarks, the objectives' first.
        count: how many of them are objectives.
        weights: of the objectives, sum 1, for their weighted mean; None for a front, or for one.
        constraints: limits, by the benchmark's name.
    """

    names: tuple[str, ...]
    count: int
    weights: tuple[float, ...] | None
    constraints: Mapping[str, Constraint]

    @property
    def objectives(self) -> tuple[str, ...]:
        """The benchmarks to do well on."""
        return self.names[: self.count]

    @property
    def front(self) -> bool:
        """Whether trade-offs are sought, and not one best model."""
        return self.count > 1 and self.weights is None

    def floors(self, base: Mapping[str, float]) -> dict[str, float]:
        """The lowest score that each constraint allows.

        Args:
            base: the base model's scores on the same items; may be empty without `below_base`.

        Raises:
            SearchError: the base could not be scored, and a limit is below its score.
        """
        floors = {
            name: constraint.at_least
            if constraint.at_least is not None
            else base[name] - (constraint.below_base or 0.0)
            for name, constraint in self.constraints.items()
        }
        for name, floor in floors.items():
            if np.isnan(floor):
                raise SearchError(
                    f"constraints: {name}: the base model has too few scored answers for a limit "
                    "below its score; the same command tries again"
                )
        return floors

    def fitness(self, scores: FloatArray, base: Mapping[str, float]) -> FloatArray:
        """The fitness of models.

        Args:
            scores: (n, benchmarks) in [0, 1], in the order of `names`; NaN for a failed candidate.
            base: see `floors`.

        Returns:
            (n, k) to be maximised, k = 1 but for a front. Models that keep the constraints have
            their scores or their weighted mean. The others have, in every objective, minus the sum
            of what they are short of: they rank below all that keep the constraints, the smaller
            violation first (Deb 2000). NaN where a score is.
        """
        objectives = scores[:, : self.count]
        fitness = objectives
        if not self.front:
            weights = np.array(self.weights or [1.0])
            fitness = objectives @ weights[:, None]
        short = np.zeros(len(scores))
        for name, floor in self.floors(base).items():
            short += np.maximum(0.0, floor - scores[:, self.names.index(name)])
        fitness = np.where(short[:, None] > 0, -short[:, None], fitness)
        failed = np.isnan(scores).any(axis=1, keepdims=True)
        return np.where(failed, np.nan, fitness)


def told(fitness: float) -> str:
    """A fitness in words: an estimate, or by how much limits are not kept."""
    if fitness < 0:
        return f"breaks a constraint by {-100 * fitness:.1f} points"
    return f"estimate {100 * fitness:.1f} %"


def estimates_of(table: pa.Table, names: tuple[str, ...]) -> FloatArray:
    """The estimates of a generation's table, (candidates, benchmarks); NaN where failed."""
    columns = [table[f"estimate_{name}"].to_pylist() for name in names]
    return np.array(columns, dtype=np.float64).T.reshape(-1, len(names))
