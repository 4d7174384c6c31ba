"""That every algorithm finds better points than random search does at the same cost."""

import numpy as np
import pytest

from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.evolution.front import hypervolume

# How many times closer to the best point than random search, after 25 generations of 12.
CLOSER = {
    "bayesian": 10,
    "cma_es": 10,
    "de": 5,
    "ga": 2,
    "map_elites": 1.25,
    "mo_cma_es": 1.5,
    "natural_niches": 2,
    "nsga2": 2,
    "nsga3": 2,
    "one_plus_lambda_cma_es": 5,
    "pso": 10,
    "spea2": 2,
}
NOT_TO_LEARN = {"random", "sobol"}


def test_every_algorithm_is_here():
    assert set(CLOSER) | NOT_TO_LEARN == set(ALGORITHMS)


@pytest.mark.parametrize(("name", "factor"), CLOSER.items(), ids=CLOSER)
@pytest.mark.parametrize("seed", range(4))
def test_one_objective(evolve, sphere, name, factor, seed):
    budget = {"dimension": 10, "population": 12, "generations": 25, "seed": seed}
    reached = -evolve(ALGORITHMS[name], sphere, **budget).fitness.max()
    baseline = -evolve(ALGORITHMS["random"], sphere, **budget).fitness.max()
    assert reached < baseline / factor


def zdt1(x: np.ndarray) -> np.ndarray:
    """(n, 2), turned to be maximised (Zitzler, Deb and Thiele 2000, eq. 7); best at a face."""
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    return -np.stack([x[:, 0], g * (1 - np.sqrt(x[:, 0] / g))], axis=1)


@pytest.mark.parametrize("name", ["mo_cma_es", "nsga2", "nsga3", "spea2"])
@pytest.mark.parametrize("seed", range(2))
def test_the_last_population_is_the_front_of_zdt1(evolve, name, seed):
    budget = {"dimension": 8, "population": 40, "generations": 80, "seed": seed}
    scores = np.array(evolve(ALGORITHMS[name], zdt1, **budget).state["fitness"])
    # The front is f2 = 1 - sqrt(f1) on [0, 1]: 2/3 + .1 under it up to f1 = 1, and .1 * 1.1 beyond.
    assert hypervolume(scores, [-1.1, -1.1]) > 0.97 * (2 / 3 + 0.1 + 0.11)
    assert np.ptp(scores, axis=0).min() > 0.9


def two_spheres(x: np.ndarray) -> np.ndarray:
    """(n, 2); the front is the line between the two best points."""
    return -np.stack([((x - at) ** 2).sum(axis=1) for at in (0.3, 0.6)], axis=1)


# Generations of 20, and how many times less is missing from the hypervolume than by random search.
# MO-CMA-ES adapts as many strategies as the population, and each by itself.
LESS_MISSING = {"mo_cma_es": (60, 1.4), "nsga2": (30, 3), "nsga3": (30, 3), "spea2": (30, 3)}


@pytest.mark.parametrize("name", LESS_MISSING)
@pytest.mark.parametrize("seed", range(4))
def test_several_objectives(evolve, name, seed):
    generations, factor = LESS_MISSING[name]
    budget = {"dimension": 8, "population": 20, "generations": generations, "seed": seed}
    corner = [-0.8, -0.8]
    t = np.linspace(0, 1, 2000)
    best = hypervolume(-8 * 0.3**2 * np.stack([t**2, (1 - t) ** 2], axis=1), corner)
    missing = {
        one: 1 - hypervolume(evolve(ALGORITHMS[one], two_spheres, **budget).fitness, corner) / best
        for one in (name, "random")
    }
    assert 0 <= missing[name] < missing["random"] / factor
