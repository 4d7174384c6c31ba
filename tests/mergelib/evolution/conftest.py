from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from mergelib.evolution.algorithms import Algorithm
from mergelib.evolution.population import Genome, State


@dataclass(frozen=True)
class Search:
    """Everything that a search told, and the state that it ended in."""

    genomes: np.ndarray
    fitness: np.ndarray
    state: State


def evolve(
    algorithm: Algorithm,
    score: Callable[[np.ndarray], np.ndarray],
    *,
    dimension: int,
    population: int,
    generations: int,
    seed: int,
    first: Sequence[Genome] = (),
) -> Search:
    state = algorithm.start(dimension, population, seed, first)
    told, scores = [], []
    for _ in range(generations):
        genomes = algorithm.ask(state)
        fitness = score(np.array(genomes))
        state = algorithm.tell(state, genomes, fitness)
        told.append(genomes)
        scores.append(fitness)
    return Search(np.concatenate(told), np.concatenate(scores), state)


@pytest.fixture(name="evolve", scope="session")
def _evolve() -> Callable[..., Search]:
    return evolve


@pytest.fixture(scope="session")
def sphere() -> Callable[[np.ndarray], np.ndarray]:
    """(n, 1), best at .3 .95 .3 .95 ...: neither the middle of the box nor a corner."""
    return lambda x: -((x - np.resize([0.3, 0.95], x.shape[1])) ** 2).sum(axis=1, keepdims=True)
