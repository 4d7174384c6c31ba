"""Space-filling search: one scrambled Sobol sequence, continued from generation to generation.

Sobol (1967), scrambled as Owen (1998) does, by scipy. Any number of its first points fills the box
more evenly than as many random ones, so that a search need not know its own length.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from mergelib.evolution.population import Genome, State, begin, first_of, scored
from mergelib.evolution.randomness import generator


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    return begin("sobol", dimension, population, seed, first, smallest=1)


def ask(state: State) -> list[Genome]:
    """Give the next `population` points; in generation 0 the genomes of `first` come before them.

    The sequence does not stop for failed candidates: the points that they had are not asked again.
    """
    first = first_of(state)
    count = state["population"] - len(first)
    done = state["generation"] * state["population"]
    if state["generation"] > 0:
        done -= len(state["first"])
    points = qmc.Sobol(state["dimension"], rng=generator(state["seed"], 0, "sobol"))
    if done == 0:
        # As many as scipy asks to start with, a power of two: the cut is the sequence's beginning.
        drawn = points.random_base2(max(count - 1, 0).bit_length())[:count]
    else:
        drawn = points.fast_forward(done).random(count)
    rest: list[Genome] = drawn.tolist()
    return first + rest


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Move on to the next generation; (n, k) fitness is checked and otherwise ignored."""
    scored(state, genomes, fitness, objectives=None)
    return {**state, "generation": state["generation"] + 1}
