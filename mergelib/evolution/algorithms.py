"""The shape that every algorithm has, and the registry of those that a search file can name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergelib.evolution import cma_es, genetic, nsga2, random_search
from mergelib.evolution.population import Genome, State


@dataclass(frozen=True)
class Algorithm:
    """Three pure functions over a state that is plain JSON.

    The state handed in is never changed. It survives `json.dumps(state, allow_nan=False)` and back
    any number of times, and what is asked of it then is the same to the bit.

    Attributes:
        name: the key in `ALGORITHMS`.
        several_objectives: whether k > 1 objectives are allowed.
        start: (dimension d, population, seed, first) -> the state at generation 0. The genomes of
            `first` go into the first population, up to its size, and the rest is space-filling.
        ask: (state) -> `population` genomes in [0, 1]^d; the same each time it is asked.
        tell: (state, n genomes, fitness (n, k), maximised) -> the next generation's state. n need
            not be the population. A row with NaN or an infinity is a failed candidate: it is as
            if it had not been told, so that a generation with nothing else moves only the
            random numbers on.
    """

    name: str
    several_objectives: bool
    start: Callable[[int, int, int, Sequence[Genome]], State]
    ask: Callable[[State], list[Genome]]
    tell: Callable[[State, Sequence[Genome], NDArray[np.float64]], State]


ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("cma_es", False, cma_es.start, cma_es.ask, cma_es.tell),
        Algorithm("ga", False, genetic.start, genetic.ask, genetic.tell),
        Algorithm("nsga2", True, nsga2.start, nsga2.ask, nsga2.tell),
        Algorithm("random", True, random_search.start, random_search.ask, random_search.tell),
    )
}
