"""MAP-Elites: the best candidate for each combination of two descriptors (Mouret and Clune 2015).

A descriptor says what a candidate is like, not how good it is: its score on each of two benchmarks,
or how far it is from each parent. The archive is a grid of 8 x 8 cells, each with one elite.

Elites are crossed and mutated as in `ga`. Iso+LineDD (Vassiliades and Mouret 2018) was tried: it is
meant for millions of evaluations, and with the hundreds of a search here it came less far, on the
sphere and on Rastrigin, with and without noise.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergelib.evolution.population import (
    Genome,
    Individual,
    State,
    begin,
    design,
    scored,
    traits_of,
)
from mergelib.evolution.randomness import generator
from mergelib.evolution.variation import offspring

CELLS = 8
"""Along each of the two descriptors."""

NOWHERE = -1
"""The cell of candidates with unknown descriptors, who compete among themselves."""


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    return {**begin("map_elites", dimension, population, seed, first), "elites": []}


def ask(state: State) -> list[Genome]:
    """Cross and mutate elites that are drawn uniformly, whatever they are worth.

    Returns:
        `population` genomes; a space-filling design as long as no candidate has been scored.
    """
    stock = [Individual(elite["genome"], [elite["fitness"]]) for elite in state["elites"]]
    if not stock:
        return design(state)
    rng = generator(state["seed"], state["generation"], "elites")
    # An odd population breeds one child more and drops it.
    drawn = rng.integers(len(stock), size=2 * -(-state["population"] // 2))
    return offspring(state, [stock[int(row)] for row in drawn])


def tell(
    state: State,
    genomes: Sequence[Genome],
    fitness: NDArray[np.float64],
    traits: NDArray[np.float64] | None = None,
) -> State:
    """Put each candidate into its cell if it is no worse than the elite there.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes. An elite among them leaves its cell and is put where its new descriptors
            say, with its new fitness.
        fitness: (n, 1), maximised; NaN is a failed candidate.
        traits: (n, 2) descriptors in [0, 1]; a row with NaN is unknown and belongs to a cell of its
            own, except that an elite told again keeps the ones it had. None: all are unknown.

    Returns:
        The state of the next generation; `elites` has a cell each, in the order of the cells.

    Raises:
        InputError: more than one objective.
        ValueError: the traits' shape, or a descriptor that is not in [0, 1].
    """
    candidates = scored(state, genomes, fitness, objectives=1)
    descriptors = traits_of(genomes, fitness, traits, width=2)
    elites: dict[int, dict[str, Any]] = {elite["cell"]: elite for elite in state["elites"]}
    for candidate, row in zip(candidates, descriptors.tolist(), strict=True):
        genome, (value,) = list(candidate), candidate.fitness.values
        cell = cell_of(row)
        before = next((at for at, elite in elites.items() if elite["genome"] == genome), None)
        if before is not None:
            del elites[before]
            cell = before if cell == NOWHERE else cell
        if cell not in elites or value >= elites[cell]["fitness"]:
            elites[cell] = {"cell": cell, "genome": genome, "fitness": value}
    following = {**state, "generation": state["generation"] + 1}
    return {**following, "elites": [elites[cell] for cell in sorted(elites)]}


def cell_of(descriptors: Sequence[float]) -> int:
    """Number the cell of two descriptors, row by row; `NOWHERE` if one is NaN. 1 is in the last."""
    if np.isnan(descriptors).any():
        return NOWHERE
    first, second = (min(int(CELLS * value), CELLS - 1) for value in descriptors)
    return CELLS * first + second
