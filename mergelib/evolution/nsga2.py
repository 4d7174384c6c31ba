"""NSGA-II for several objectives (Deb, Pratap, Agarwal and Meyarivan 2002)."""

from collections.abc import Sequence

import numpy as np
from deap import tools
from numpy.typing import NDArray

from mergelib.evolution.population import Genome, State, begin, design
from mergelib.evolution.randomness import seeded
from mergelib.evolution.variation import offspring, parents, rivals, with_parents


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    state = begin("nsga2", dimension, population, seed, first)
    return {**state, "parents": [], "fitness": []}


def ask(state: State) -> list[Genome]:
    """Breed the next population from winners of tournaments by dominance, then crowding.

    Returns:
        `population` genomes; a space-filling design as long as no candidate has been scored.
    """
    stock = parents(state)
    if not stock:
        return design(state)
    # Crowding distances are not in the state: they follow from the fitness, here as after a resume.
    stock = tools.selNSGA2(stock, len(stock))
    # DEAP's tournament takes four at a time, each individual at most twice: a stock that is short
    # or no multiple of four is filled up from its best front on, and surplus mates are dropped.
    places = 4 * -(-state["population"] // 4)
    stock = (stock * -(-places // len(stock)))[:places]
    with seeded(state["seed"], state["generation"], "tournament"):
        mates = tools.selTournamentDCD(stock, places)
    return offspring(state, mates)


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Keep the best fronts of parents and newcomers, the last of them by crowding distance.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes.
        fitness: (n, k), maximised; a row with NaN is a failed candidate, which never becomes a
            parent. With fewer scored than the population, the parents are fewer.

    Returns:
        The state of the next generation.
    """
    pool = rivals(state, genomes, fitness, objectives=None)
    if len(pool) > state["population"]:
        pool = tools.selNSGA2(pool, state["population"])
    return with_parents(state, pool)
