"""How genetic algorithms breed: stock kept in the state, crossover and mutation of real genes."""

from collections.abc import Sequence

import numpy as np
from deap import tools
from numpy.typing import NDArray

from mergelib.evolution.population import Genome, Individual, State, scored
from mergelib.evolution.randomness import seeded

CROSSOVER_ETA = 15.0
CROSSOVER_PROBABILITY = 0.9
MUTATION_ETA = 20.0


def parents(state: State) -> list[Individual]:
    """Rebuild the parents from the state; empty before the first candidate is scored."""
    return [
        Individual(genome, values)
        for genome, values in zip(state["parents"], state["fitness"], strict=True)
    ]


def with_parents(state: State, chosen: Sequence[Individual]) -> State:
    """Give the next generation's state, with `chosen` as its parents."""
    return {
        **state,
        "generation": state["generation"] + 1,
        "parents": [list(individual) for individual in chosen],
        "fitness": [list(individual.fitness.values) for individual in chosen],
    }


def rivals(
    state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64], *, objectives: int | None
) -> list[Individual]:
    """Pool the parents and the scored newcomers, the (mu + lambda) of elitist replacement.

    A genome is in the pool once: told again, its newer fitness counts, unless it failed this time.
    Newcomers stand before parents, so that a stable sort prefers them when they are equal: scores
    on a few dozen items have many ties, and a population that never moves along them stands still.

    Args:
        state: the state with the parents.
        genomes: n genomes.
        fitness: (n, k), maximised; a row with NaN is a failed candidate and is left out.
        objectives: the k that the algorithm takes, None for any.

    Returns:
        Different genomes, each with a finite fitness.
    """
    newcomers = scored(state, genomes, fitness, objectives=objectives)
    pool = {tuple(individual): individual for individual in newcomers}
    for parent in parents(state):
        pool.setdefault(tuple(parent), parent)
    return list(pool.values())


def offspring(
    state: State,
    mates: Sequence[Individual],
    *,
    eta: float = CROSSOVER_ETA,
    probability: float = CROSSOVER_PROBABILITY,
) -> list[Genome]:
    """Cross pairs of mates and mutate the children.

    Simulated binary crossover (Deb and Agrawal 1995) with eta 15 on 9 of 10 pairs, then polynomial
    mutation (Deb and Goyal 1996) with eta 20 of each gene with probability 1/d; both in the bounded
    form of Deb's NSGA-II code, so children stay in the box.

    Args:
        state: gives the seed, the generation, d and the number of children.
        mates: parents in pairs, an even number and at least `population` of them.
        eta: of the crossover; the larger, the closer children are to their parents.
        probability: of crossing a pair at all.

    Returns:
        `population` genomes.
    """
    children: list[Genome] = []
    with seeded(state["seed"], state["generation"], "offspring") as rng:
        for one, other in zip(mates[::2], mates[1::2], strict=True):
            pair = list(one), list(other)
            if rng.random() < probability:
                tools.cxSimulatedBinaryBounded(*pair, eta=eta, low=0.0, up=1.0)
            for child in pair:
                tools.mutPolynomialBounded(
                    child, eta=MUTATION_ETA, low=0.0, up=1.0, indpb=1.0 / state["dimension"]
                )
                children.append(child)
    return children[: state["population"]]
