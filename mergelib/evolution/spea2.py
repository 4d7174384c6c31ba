"""SPEA2 for several objectives (Zitzler, Laumanns and Thiele 2001).

The archive is the state's parents, as many as the population. Selection is not DEAP's `selSPEA2`:
that takes each candidate's density from those after it in the list only, and truncates in pure
Python. Objectives are scaled to [0, 1] before distances are taken.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mergelib.evolution.population import Genome, Individual, State, begin, design
from mergelib.evolution.randomness import generator
from mergelib.evolution.variation import offspring, parents, rivals, with_parents


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    state = begin("spea2", dimension, population, seed, first)
    return {**state, "parents": [], "fitness": []}


def ask(state: State) -> list[Genome]:
    """Breed the next population from winners of binary tournaments by strength and density.

    Returns:
        `population` genomes; a space-filling design as long as no candidate has been scored.
    """
    stock = parents(state)
    if not stock:
        return design(state)
    rng = generator(state["seed"], state["generation"], "tournament")
    # An odd population breeds one child more and drops it.
    pairs = rng.integers(len(stock), size=(2 * -(-state["population"] // 2), 2))
    F = strength_fitness(_scores(stock))
    winners = np.where(F[pairs[:, 0]] <= F[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    return offspring(state, [stock[int(row)] for row in winners])


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Keep the non-dominated of archive and newcomers, thinned out or filled up to the population.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes.
        fitness: (n, k), maximised; a row with NaN is a failed candidate, which never becomes a
            parent. With fewer scored than the population, the parents are fewer.

    Returns:
        The state of the next generation.
    """
    pool = rivals(state, genomes, fitness, objectives=None)
    if len(pool) <= state["population"]:
        return with_parents(state, pool)
    kept = selected(_scores(pool), state["population"])
    return with_parents(state, [pool[row] for row in kept])


def strength_fitness(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give F = R + D, the lower the better and below 1 for the non-dominated (section 3.1).

    Args:
        scores: (n, k), maximised.

    Returns:
        (n,): R, the sum over those who dominate a candidate of how many each of them dominates,
        plus D = 1 / (distance to the k-th nearest + 2), k = sqrt(n).
    """
    n = len(scores)
    better = (scores[:, None] >= scores[None]).all(axis=2)
    dominates = better & ~better.T
    R = dominates.sum(axis=1) @ dominates
    if n == 1:
        return np.zeros(1)
    sigma_k = np.sort(_distances(scores), axis=1)[:, min(int(np.sqrt(n)), n - 1)]
    F: NDArray[np.float64] = R + 1.0 / (sigma_k + 2.0)
    return F


def selected(scores: NDArray[np.float64], count: int) -> list[int]:
    """Choose the next archive (section 3.2).

    Args:
        scores: (n, k), maximised.
        count: how many to choose, at most n.

    Returns:
        `count` row numbers. All non-dominated rows, if they fit, and the best of the others by F;
        else the non-dominated without, one at a time, the one whose distances to the others,
        sorted, come first in lexicographic order.
    """
    F = strength_fitness(scores)
    kept = np.flatnonzero(F < 1.0)
    if len(kept) <= count:
        return [int(row) for row in np.argsort(F, kind="stable")[:count]]
    distances = _distances(scores[kept])
    np.fill_diagonal(distances, np.inf)
    left = np.arange(len(kept))
    while len(left) > count:
        sorted_rows = np.sort(distances[np.ix_(left, left)], axis=1)
        tied = np.arange(len(left))
        for column in sorted_rows.T:
            tied = tied[column[tied] == column[tied].min()]
            if len(tied) == 1:
                break
        left = np.delete(left, tied[-1])  # of equals the older: newcomers come first
    return [int(row) for row in kept[left]]


def _distances(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) Euclidean distances, each objective scaled to [0, 1]."""
    span = np.ptp(scores, axis=0)
    scaled = scores / np.where(span > 0.0, span, 1.0)
    distances: NDArray[np.float64] = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    return distances


def _scores(individuals: Sequence[Individual]) -> NDArray[np.float64]:
    return np.array([one.fitness.values for one in individuals])
