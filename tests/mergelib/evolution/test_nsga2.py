import numpy as np
import pytest

from mergelib.evolution import nsga2
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.evolution.front import hypervolume, non_dominated

REFERENCE = [-1.1, -1.1]
# The front is f2 = 1 - sqrt(f1) on [0, 1]: 2/3 + .1 under it up to f1 = 1, and .1 * 1.1 beyond.
ANALYTIC = 2 / 3 + 0.1 + 0.11


def zdt1(x: np.ndarray) -> np.ndarray:
    """(n, 2), turned to be maximised (Zitzler, Deb and Thiele 2000, eq. 7)."""
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    return -np.stack([x[:, 0], g * (1 - np.sqrt(x[:, 0] / g))], axis=1)


# 42 is no multiple of the four that DEAP's tournament takes at a time.
@pytest.mark.parametrize("population", [40, 42])
def test_approaches_the_front_of_zdt1(evolve, population):
    budget = {"dimension": 8, "population": population, "generations": 80, "seed": 0}
    parents = np.array(evolve(ALGORITHMS["nsga2"], zdt1, **budget).state["fitness"])
    reached = hypervolume(parents, REFERENCE)
    assert 0.97 * ANALYTIC < reached < ANALYTIC
    assert reached > 2 * hypervolume(
        evolve(ALGORITHMS["random"], zdt1, **budget).fitness, REFERENCE
    )
    # Spread along the front, not gathered at one end.
    assert np.ptp(parents, axis=0).min() > 0.8


def test_every_front_member_survives_while_there_is_room(evolve):
    state = nsga2.start(4, 30, 0, [])
    for _ in range(5):
        genomes = nsga2.ask(state)
        pool = np.concatenate([np.array(state["fitness"]).reshape(-1, 2), zdt1(np.array(genomes))])
        state = nsga2.tell(state, genomes, zdt1(np.array(genomes)))
        front = {tuple(row) for row in pool[non_dominated(pool)].tolist()}
        kept = {tuple(row) for row in state["fitness"]}
        assert front <= kept or kept <= front


@pytest.mark.parametrize("population", [2, 3, 5, 6, 7, 9])
@pytest.mark.parametrize("scored", [1, 2, 3, 5])
def test_any_population_and_any_number_of_parents_breed(population, scored):
    state = nsga2.start(3, population, 0, [])
    genomes = nsga2.ask(state)
    fitness = np.arange(3.0 * population).reshape(population, 3)
    fitness[scored:] = np.nan
    state = nsga2.tell(state, genomes, fitness)
    assert len(state["parents"]) == min(scored, population)
    assert len(nsga2.ask(state)) == population
