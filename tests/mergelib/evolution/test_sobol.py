import numpy as np
import pytest
from scipy.stats import qmc

from mergelib.evolution import random_search, sobol
from mergelib.evolution.randomness import generator


def asked(module, dimension: int, population: int, generations: int, seed: int, first=()):
    state = module.start(dimension, population, seed, list(first))
    points = []
    for _ in range(generations):
        genomes = module.ask(state)
        points += genomes
        state = module.tell(state, genomes, np.zeros((population, 1)))
    return np.array(points)


@pytest.mark.parametrize("population", [1, 6, 8])
@pytest.mark.parametrize("first", [0, 1, 6, 9])
def test_generations_are_one_sequence_without_gaps(population, first):
    given = np.random.default_rng(0).random((first, 3)).tolist()
    points = asked(sobol, 3, population, 5, 4, given)
    kept = min(first, population)
    sequence = qmc.Sobol(3, rng=generator(4, 0, "sobol")).random_base2(6)
    assert points[:kept].tolist() == given[:kept]
    np.testing.assert_array_equal(points[kept:], sequence[: 5 * population - kept])


@pytest.mark.parametrize("seed", range(5))
def test_fills_the_box_more_evenly_than_random_points(seed):
    even, other = (asked(module, 5, 12, 8, seed) for module in (sobol, random_search))
    assert qmc.discrepancy(even) < qmc.discrepancy(other) / 2


def test_no_warning_about_powers_of_two(recwarn):
    asked(sobol, 2, 7, 3, 0)
    assert not recwarn
