"""Random search, the baseline that every other algorithm has to beat (Bergstra and Bengio 2012)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mergelib.evolution.population import Genome, State, begin, design, scored
from mergelib.evolution.randomness import generator


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    return begin("random", dimension, population, seed, first, smallest=1)


def ask(state: State) -> list[Genome]:
    """Draw `population` genomes uniformly; the first generation is the space-filling design."""
    if state["generation"] == 0:
        return design(state)
    rng = generator(state["seed"], state["generation"], "uniform")
    genomes: list[Genome] = rng.random((state["population"], state["dimension"])).tolist()
    return genomes


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Move on to the next generation; (n, k) fitness is checked and otherwise ignored."""
    scored(state, genomes, fitness, objectives=None)
    return {**state, "generation": state["generation"] + 1}
