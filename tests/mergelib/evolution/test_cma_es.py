import numpy as np
import pytest
from deap import base, cma, creator

from mergelib.evolution import cma_es
from mergelib.evolution.algorithms import ALGORITHMS

PATHS = ("centroid", "sigma", "C", "pc", "ps", "update_count")


@pytest.fixture(scope="module")
def individual():
    """Make individuals the way DEAP's manual does."""
    creator.create("OracleFitness", base.Fitness, weights=(1.0,))
    creator.create("OracleIndividual", list, fitness=creator.OracleFitness)
    yield creator.OracleIndividual
    del creator.OracleIndividual, creator.OracleFitness


@pytest.mark.parametrize(("dimension", "population"), [(1, 4), (5, 9), (12, 14)])
def test_updates_are_deaps(individual, sphere, dimension, population):
    oracle = cma.Strategy([0.5] * dimension, 1 / 6, lambda_=population)
    state = cma_es.start(dimension, population, 3, [])
    for _ in range(12):
        genomes = cma_es.ask(state)
        fitness = sphere(np.array(genomes))
        told = []
        for genome, (value,) in zip(genomes, fitness, strict=True):
            one = individual(genome)
            one.fitness.values = (value,)
            told.append(one)
        oracle.update(told)
        state = cma_es.tell(state, genomes, fitness)
        for name in PATHS:
            np.testing.assert_allclose(state[name], getattr(oracle, name), rtol=1e-9, atol=1e-12)


def test_samples_have_the_distribution_of_the_state():
    C = np.array([[1.0, 0.6], [0.6, 0.5]])
    state = {**cma_es.start(2, 20_000, 0, []), "centroid": [0.4, 0.6], "sigma": 0.05}
    x = np.array(cma_es.ask({**state, "C": C.tolist()}))
    np.testing.assert_allclose(x.mean(axis=0), [0.4, 0.6], atol=2e-3)
    np.testing.assert_allclose(np.cov(x.T) / 0.05**2, C, atol=0.03)


def test_points_outside_the_box_are_drawn_again_rather_than_clipped():
    state = {**cma_es.start(2, 2000, 0, []), "centroid": [0.0, 1.0], "sigma": 0.3}
    x = np.array(cma_es.ask(state))
    assert ((x == 0) | (x == 1)).any(axis=1).mean() < 0.02
    # In many dimensions a corner leaves hardly a point inside, and clipping has to do.
    corner = {**cma_es.start(40, 10, 0, []), "centroid": [0.0] * 40}
    assert len(cma_es.ask(corner)) == 10


def test_a_single_first_genome_is_the_mean():
    first = [[0.2, 0.7, 1.0]]
    assert cma_es.start(3, 6, 0, first)["centroid"] == first[0]
    assert cma_es.start(3, 6, 0, [])["centroid"] == [0.5] * 3
    assert cma_es.start(3, 6, 0, first * 2)["centroid"] == [0.5] * 3


@pytest.mark.parametrize("scored", [1, 2, 3])
def test_fewer_candidates_than_parents_update_as_a_smaller_strategy(individual, sphere, scored):
    state = cma_es.start(4, 12, 1, [])
    genomes = cma_es.ask(state)
    fitness = sphere(np.array(genomes))
    fitness[scored:] = np.nan
    oracle = cma.Strategy([0.5] * 4, 1 / 6, lambda_=12, mu=scored)
    told = []
    for genome, (value,) in zip(genomes[:scored], fitness[:scored], strict=True):
        one = individual(genome)
        one.fitness.values = (value,)
        told.append(one)
    oracle.update(told)
    state = cma_es.tell(state, genomes, fitness)
    for name in PATHS:
        np.testing.assert_allclose(state[name], getattr(oracle, name), rtol=1e-9, atol=1e-12)


def test_endpoints_in_the_corners_do_not_blow_the_distribution_up(sphere):
    d = 16
    corner = np.ones(d)
    corners = [corner.tolist(), (corner * (np.arange(d) > 0)).tolist()]
    state = cma_es.start(d, 12, 0, corners)
    genomes = cma_es.ask(state)
    fitness = sphere(np.array(genomes))
    fitness[:2] = 1.0
    told = cma_es.tell(state, genomes, fitness)
    # Each is 12 standard deviations from the mean, and counts as the longest step allowed.
    limit = np.sqrt(d) + 2 * d / (d + 2)
    pulled = [0.5 + limit / 12 * (np.array(one) - 0.5) for one in corners]
    expected = cma_es.tell({**state, "first": []}, [*pulled, *genomes[2:]], fitness)
    for name in PATHS:
        np.testing.assert_allclose(told[name], expected[name], rtol=1e-9, atol=1e-12)
    # The same two told as if they had been sampled.
    free = cma_es.tell({**state, "first": []}, genomes, fitness)
    variance = [one["sigma"] ** 2 * np.linalg.eigvalsh(one["C"])[-1] for one in (told, free)]
    assert variance[1] > 2 * variance[0]


@pytest.mark.parametrize("score", ["flat", "ill_conditioned", "slope"])
def test_long_searches_end_in_usable_states(evolve, score):
    functions = {
        "flat": lambda x: np.zeros((len(x), 1)),
        "ill_conditioned": lambda x: -(((x - 0.3) ** 2) @ np.logspace(0, 8, 5)[:, None]),
        "slope": lambda x: x.sum(axis=1, keepdims=True),
    }
    search = evolve(
        ALGORITHMS["cma_es"],
        functions[score],
        dimension=5,
        population=8,
        generations=600,
        seed=0,
    )
    eigenvalues = np.linalg.eigvalsh(search.state["C"])
    assert eigenvalues[0] > 0
    assert eigenvalues[-1] / eigenvalues[0] < 1e15
    assert cma_es.SIGMA_RANGE[0] <= search.state["sigma"] <= cma_es.SIGMA_RANGE[1]


def test_a_covariance_that_rounding_spoilt_is_mended():
    B = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3))).Q
    state = cma_es.start(3, 6, 0, [])
    state["C"] = ((B * np.array([1e-40, 1e-3, 1.0])) @ B.T).tolist()
    mended = cma_es._well_conditioned(np.array(state["C"]))
    np.testing.assert_allclose(np.linalg.eigvalsh(mended), [1e-14, 1e-3, 1], rtol=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_beats_random_search_ten_times_over(evolve, sphere, seed):
    budget = {"dimension": 10, "population": 12, "generations": 25, "seed": seed}
    reached = -evolve(ALGORITHMS["cma_es"], sphere, **budget).fitness.max()
    baseline = -evolve(ALGORITHMS["random"], sphere, **budget).fitness.max()
    assert reached < baseline / 10


def resting(state: dict) -> bool:
    """Whether the distribution is a first one, at whatever mean."""
    first = cma_es.start(state["dimension"], state["population"], 0, [])
    return all(state[name] == first[name] for name in PATHS if name != "centroid")


def test_starts_again_when_the_best_of_a_generation_has_not_moved(sphere):
    d, population = 3, 6
    window = 10 + 30 * d // population
    state = cma_es.start(d, population, 0, [])
    for generation in range(3 * window + 2):
        genomes = cma_es.ask(state)
        # Only one moves: it shows that others may do what they like.
        fitness = np.minimum(sphere(np.array(genomes)), -0.5)
        fitness[0] = -0.5
        if generation == 4:
            fitness[1] = -0.4
        state = cma_es.tell(state, genomes, fitness)
        # The better one in generation 4 has to leave the window first.
        restarts = [4 + window, 4 + 2 * window, 4 + 3 * window]
        assert state["restarts"] == sum(generation >= at for at in restarts)
        assert resting(state) == (generation in restarts)
    assert len(state["bests"]) < window


def test_starts_again_when_the_steps_have_collapsed_and_keeps_the_best(evolve, sphere):
    search = evolve(
        ALGORITHMS["cma_es"], sphere, dimension=4, population=8, generations=260, seed=1
    )
    assert search.state["restarts"] >= 1
    best = int(search.fitness.argmax())
    assert search.state["incumbent"]["fitness"] == search.fitness[best, 0]
    assert search.fitness[best, 0] > -1e-15
    np.testing.assert_array_equal(search.state["incumbent"]["genome"], search.genomes[best])
    steps = np.ptp(search.genomes.reshape(260, 8, 4), axis=1).max(axis=1)
    assert steps.min() > 1e-10
    # The first collapse, and the generation that follows it.
    at = int(np.flatnonzero(steps[1:] > 1e4 * steps[:-1])[0])
    assert steps[at] < 1e-7
    assert steps[at + 1] > 0.1


def test_noise_alone_does_not_start_it_again(evolve):
    rng = np.random.default_rng(0)
    search = evolve(
        ALGORITHMS["cma_es"],
        lambda x: rng.standard_normal((len(x), 1)),
        dimension=3,
        population=8,
        generations=80,
        seed=0,
    )
    assert search.state["restarts"] == 0


def test_new_means_are_spread_over_the_box():
    state = {**cma_es.start(2, 4, 0, []), "sigma": 1e-11}
    means = []
    for generation in range(200):
        now = {**state, "generation": generation}
        told = cma_es.tell(now, cma_es.ask(now), np.arange(4.0)[:, None])
        assert told["restarts"] == 1
        means.append(told["centroid"])
    np.testing.assert_allclose(np.mean(means, axis=0), 0.5, atol=0.06)
    np.testing.assert_allclose(np.std(means, axis=0), 12**-0.5, atol=0.03)


def test_an_incumbent_that_is_told_again_has_its_newer_fitness():
    state = cma_es.start(2, 4, 0, [])
    a, b = [0.2, 0.2], [0.4, 0.4]
    state = cma_es.tell(state, [a, b], np.array([[0.9], [0.5]]))
    assert state["incumbent"] == {"genome": a, "fitness": 0.9}
    lower = cma_es.tell(state, [a], np.array([[0.6]]))
    assert lower["incumbent"] == {"genome": a, "fitness": 0.6}
    overtaken = cma_es.tell(state, [a, b], np.array([[0.3], [0.5]]))
    assert overtaken["incumbent"] == {"genome": b, "fitness": 0.5}


def test_a_search_from_before_there_were_restarts_goes_on(sphere):
    state = cma_es.start(3, 6, 0, [])
    for _ in range(3):
        genomes = cma_es.ask(state)
        state = cma_es.tell(state, genomes, sphere(np.array(genomes)))
    old = {name: state[name] for name in state if name not in cma_es._NOTHING_KNOWN}
    genomes = cma_es.ask(old)
    fitness = sphere(np.array(genomes))
    told, expected = cma_es.tell(old, genomes, fitness), cma_es.tell(state, genomes, fitness)
    assert cma_es.ask(told) == cma_es.ask(expected)
    assert told["bests"] == [fitness.max()]
