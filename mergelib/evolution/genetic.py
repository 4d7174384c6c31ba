"""A genetic algorithm for one objective: tournament, crossover, mutation, elitist replacement."""

from collections.abc import Sequence

import numpy as np
from deap import tools
from numpy.typing import NDArray

from mergelib.evolution.population import Genome, State, begin, design
from mergelib.evolution.randomness import seeded
from mergelib.evolution.variation import offspring, parents, rivals, with_parents

TOURNAMENT = 2


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    state = begin("ga", dimension, population, seed, first)
    return {**state, "parents": [], "fitness": []}


def ask(state: State) -> list[Genome]:
    """Breed the next population from winners of binary tournaments.

    Returns:
        `population` genomes; a space-filling design as long as no candidate has been scored.
    """
    stock = parents(state)
    if not stock:
        return design(state)
    with seeded(state["seed"], state["generation"], "tournament"):
        # An odd population breeds one child more and drops it.
        mates = tools.selTournament(stock, 2 * -(-state["population"] // 2), TOURNAMENT)
    return offspring(state, mates)


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Keep the best of parents and newcomers, the (mu + lambda) replacement with mu = lambda.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes.
        fitness: (n, 1), maximised; NaN is a failed candidate, which never becomes a parent. With
            fewer scored than the population, the parents are fewer.

    Returns:
        The state of the next generation.

    Raises:
        InputError: more than one objective.
    """
    pool = rivals(state, genomes, fitness, objectives=1)
    return with_parents(state, tools.selBest(pool, state["population"]))
