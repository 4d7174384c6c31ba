import numpy as np
import pytest

from mergelib.evolution import genetic
from mergelib.evolution.algorithms import ALGORITHMS


def test_the_best_are_never_lost(sphere):
    state = genetic.start(6, 10, 0, [])
    seen: dict[tuple[float, ...], float] = {}
    for _ in range(10):
        genomes = genetic.ask(state)
        fitness = sphere(np.array(genomes))
        state = genetic.tell(state, genomes, fitness)
        seen |= zip(map(tuple, genomes), fitness[:, 0].tolist(), strict=True)
        best = sorted(seen.values(), reverse=True)[:10]
        assert [value for (value,) in state["fitness"]] == best


def test_a_genome_that_is_told_again_has_its_newer_fitness_once():
    state = genetic.start(2, 2, 0, [])
    a, b, c = [0.1, 0.1], [0.2, 0.2], [0.3, 0.3]
    state = genetic.tell(state, [a, b], np.array([[0.9], [0.5]]))
    state = genetic.tell(state, [a, c], np.array([[0.4], [0.6]]))
    assert state["parents"] == [c, b]
    state = genetic.tell(state, [c], np.array([[np.nan]]))
    assert state["fitness"] == [[0.6], [0.5]]


def test_of_equals_the_newcomer_stays():
    state = genetic.start(2, 2, 0, [])
    a, b, c = [0.1, 0.1], [0.2, 0.2], [0.3, 0.3]
    state = genetic.tell(state, [a, b], np.array([[0.5], [0.5]]))
    state = genetic.tell(state, [c], np.array([[0.5]]))
    assert state["parents"] == [c, a]


@pytest.mark.parametrize("seed", range(3))
def test_beats_random_search_twice_over(evolve, sphere, seed):
    budget = {"dimension": 10, "population": 12, "generations": 25, "seed": seed}
    reached = -evolve(ALGORITHMS["ga"], sphere, **budget).fitness.max()
    baseline = -evolve(ALGORITHMS["random"], sphere, **budget).fitness.max()
    assert reached < baseline / 2
