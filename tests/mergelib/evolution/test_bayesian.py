"""Bayesian optimisation."""

import numpy as np
import pytest

from mergelib.errors import InputError
from mergelib.evolution import bayesian
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.evolution.front import hypervolume, non_dominated
from mergelib.evolution.gaussian_process import fit
from mergelib.evolution.population import Genome, State


def _sphere(genomes: list[Genome]) -> np.ndarray:
    return -((np.array(genomes) - 0.35) ** 2).sum(axis=1, keepdims=True)


def _two(genomes: list[Genome]) -> np.ndarray:
    x = np.array(genomes)
    return np.stack([-((x - at) ** 2).sum(axis=1) for at in (0.2, 0.8)], axis=1)


def _searched(value, noise: float = 0.0, *, name: str = "bayesian", seed: int = 0) -> np.ndarray:
    algorithm = ALGORITHMS[name]
    state = algorithm.start(6, 4, seed, [])
    rng = np.random.default_rng(seed)
    asked: list[Genome] = []
    for _ in range(15):
        genomes = algorithm.ask(state)
        asked += genomes
        true = value(genomes)
        state = algorithm.tell(state, genomes, true + noise * rng.standard_normal(true.shape))
    return value(asked)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_sixty_candidates_come_closer_than_random_and_cma_es(noise: float) -> None:
    """Medians over seeds of the last generation, which is what a search ends with."""
    last = {
        name: np.median(
            [_searched(_sphere, noise, name=name, seed=s)[-4:].mean() for s in range(5)]
        )
        for name in ("bayesian", "cma_es", "random")
    }
    assert last["bayesian"] > last["cma_es"] > last["random"]


def test_the_front_of_two_objectives_has_more_volume_than_that_of_nsga2() -> None:
    volumes = {
        name: np.median(
            [hypervolume(_searched(_two, name=name, seed=seed), [-2.5, -2.5]) for seed in range(5)]
        )
        for name in ("bayesian", "nsga2")
    }
    assert volumes["bayesian"] > volumes["nsga2"]


def test_scalarised_by_random_directions_a_front_has_its_hypervolume() -> None:
    """Zhang and Golovin 2020, lemma 5: c_k E[max over y of min over k of (y_k / lambda_k)^k]."""
    front = np.array([[0.9, 0.2], [0.6, 0.6], [0.1, 0.8]])
    directions = np.abs(np.random.default_rng(0).standard_normal((200_000, 2)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    worth = bayesian.scalarised(front[None], np.zeros(2), directions[:, None])
    volume = np.pi / 4 * (worth.max(axis=1) ** 2).mean()  # c_2 = pi / 4
    assert volume == pytest.approx(hypervolume(front, [0, 0]), rel=0.01)


def test_a_population_by_turns_exploits_and_explores() -> None:
    """The first of four is where the process is higher, the fourth where it is less sure."""
    means, deviations = [], []
    for generations in range(2, 10):
        state = _after(generations)
        process = fit(
            np.array([one["genome"] for one in state["told"]]),
            np.array([one["fitness"][0] for one in state["told"]]),
        )
        asked = process.at(np.array(bayesian.ask(state)))
        means.append(asked.mean)
        deviations.append(asked.deviation)
    assert np.median(np.array(means), axis=0)[0] > np.median(np.array(means), axis=0)[3]
    assert np.median(np.array(deviations), axis=0)[0] < np.median(np.array(deviations), axis=0)[3]


def test_no_genome_is_asked_twice_in_a_generation() -> None:
    """All that exploit would otherwise choose the one place where the process is highest."""
    state = bayesian.start(3, 12, 0, [])
    for _ in range(4):
        genomes = bayesian.ask(state)
        assert len(set(map(tuple, genomes))) == 12
        state = bayesian.tell(state, genomes, _sphere(genomes))


def test_what_has_been_asked_and_not_told_is_not_explored_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four places and then four more are as far apart if the first four are known to be out."""
    monkeypatch.setattr(bayesian, "KAPPAS", (20.0,))
    algorithm = ALGORITHMS["bayesian"]
    closest: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(20):
        state = algorithm.start(3, 4, seed, [])
        for _ in range(3):
            genomes = algorithm.ask(state)
            state = algorithm.tell(state, genomes, _sphere(genomes))
        first = algorithm.ask(state)
        known = algorithm.ask(state, [first])
        unknown = algorithm.ask({**state, "generation": 4})
        for is_known, following in ((True, known), (False, unknown)):
            distances = np.linalg.norm(np.array(first)[:, None] - np.array(following), axis=2)
            closest[is_known].append(distances.min())
    assert np.median(closest[True]) > 2 * np.median(closest[False])


def test_a_population_larger_than_the_pool_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bayesian, "POOL", 8)
    state = bayesian.start(3, 20, 0, [])
    genomes = bayesian.ask(state)
    state = bayesian.tell(state, genomes, _sphere(genomes))
    assert len(set(map(tuple, bayesian.ask(state)))) == 20


def test_small_populations_take_turns_over_generations() -> None:
    """Otherwise a population of two would never look where little is known."""
    state = {**_after(3), "population": 2}
    turns = [bayesian.kappa(state["generation"] * 2 + number) for number in range(4)]
    assert len(set(turns)) == 4


@pytest.mark.parametrize("population", [10, 50])
def test_what_is_remembered_is_bounded_and_holds_the_best_and_the_newest(population: int) -> None:
    state = bayesian.start(2, population, 0, [])
    limit = bayesian.remembered(population)
    genomes = np.random.default_rng(0).random((600 // population, population, 2)).tolist()
    for generation in genomes:
        state = bayesian.tell(state, generation, _sphere(generation))
    kept = [tuple(one["genome"]) for one in state["told"]]
    flat = [tuple(g) for generation in genomes for g in generation]
    best = max(flat, key=lambda genome: _sphere([genome])[0, 0])
    assert len(kept) == limit
    assert best in kept
    assert kept[-limit // 2 :] == flat[-limit // 2 :]


def test_a_genome_told_again_has_its_newer_fitness() -> None:
    state = bayesian.start(2, 4, 0, [])
    genomes = bayesian.ask(state)
    state = bayesian.tell(state, genomes, np.zeros((4, 1)))
    state = bayesian.tell(state, genomes[:1], np.ones((1, 1)))
    assert [one["fitness"] for one in state["told"]] == [[0.0], [0.0], [0.0], [1.0]]
    assert state["told"][-1]["genome"] == genomes[0]


def test_the_members_of_the_front_are_remembered_first() -> None:
    state = bayesian.start(2, 20, 0, [])
    genomes = np.random.default_rng(1).random((8, 20, 2)).tolist()
    for generation in genomes:
        state = bayesian.tell(state, generation, _two(generation))
    everything = _two([genome for generation in genomes for genome in generation])
    kept = np.array([one["fitness"] for one in state["told"]])
    front = everything[non_dominated(everything)]
    assert all((kept == member).all(axis=1).any() for member in front)


def _after(generations: int) -> State:
    state = bayesian.start(3, 4, 1, [])
    for _ in range(generations):
        genomes = bayesian.ask(state)
        state = bayesian.tell(state, genomes, _sphere(genomes))
    return state


def test_a_state_of_an_earlier_version_is_refused_in_a_line() -> None:
    state = _after(2)
    for one in state["told"]:
        del one["answers"]
    with pytest.raises(InputError, match="earlier version of mergeflow.*another name"):
        bayesian.ask(state)


def test_the_luck_of_few_answers_leads_nobody() -> None:
    """Neither are its neighbours tried, nor is it remembered for being the best."""
    y, answers = np.array([[0.9], [0.5], [0.6], [0.4]]), np.array([7.0, 30.0, 30.0, 30.0])
    assert bayesian._leading(y, answers) == [2, 1, 3, 0]
    assert bayesian._leading(y, np.full(4, 30.0)) == [0, 2, 1, 3]
