"""What holds for every algorithm in the registry."""

import copy
import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergelib.errors import InputError
from mergelib.evolution.algorithms import ALGORITHMS, Algorithm

ENDPOINTS = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.5]]

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
learning = [one for one in ALGORITHMS.values() if one.name not in ("random", "sobol")]
learners = pytest.mark.parametrize("algorithm", learning, ids=lambda a: a.name)


asynchronous = pytest.mark.parametrize(
    "algorithm", [one for one in ALGORITHMS.values() if one.asynchronous], ids=lambda a: a.name
)


def scores(algorithm: Algorithm, genomes: list[list[float]]) -> np.ndarray:
    """One objective, or two that conflict."""
    x = np.array(genomes)
    objectives = [-((x - at) ** 2).sum(axis=1) for at in (0.2, 0.9)]
    return np.stack(objectives[: 2 if algorithm.several_objectives else 1], axis=1)


def traits(algorithm: Algorithm, genomes: list[list[float]]) -> np.ndarray | None:
    """What the algorithm can use, with a gap: two genes, or six items that genes get right."""
    x = np.array(genomes)
    if algorithm.traits is None:
        return None
    if algorithm.traits == "descriptors":
        known = x[:, [0, -1]]
        known[2::5, 0] = np.nan
        return known
    if algorithm.traits == "answers":
        return np.round(10 + 20 * x[:, :1])
    known = np.concatenate([x > 0.4, x < 0.7], axis=1).astype(float)
    known[1::3, 0] = np.nan
    return known


def after(algorithm: Algorithm, generations: int, *, population: int = 7, first=()) -> dict:
    state = algorithm.start(3, population, 5, first)
    for _ in range(generations):
        genomes = algorithm.ask(state)
        told = scores(algorithm, genomes), traits(algorithm, genomes)
        state = algorithm.tell(state, genomes, *told)
    return state


def through_json(state: dict) -> dict:
    return json.loads(json.dumps(state, allow_nan=False))


@every_algorithm
@settings(max_examples=15, deadline=None)
@given(
    dimension=st.integers(1, 6),
    seed=st.integers(-(2**70), 2**70),
    data=st.data(),
)
def test_populations_are_in_the_box_and_of_the_asked_size(algorithm, dimension, seed, data):
    population = data.draw(st.integers(algorithm.smallest_population, 13))
    gene = st.floats(0, 1)
    genome = st.lists(gene, min_size=dimension, max_size=dimension)
    first = data.draw(st.lists(genome, max_size=population + 2))
    state = algorithm.start(dimension, population, seed, first)
    for generation in range(3):
        genomes = algorithm.ask(state)
        assert len(genomes) == population
        assert all(type(g) is float and 0 <= g <= 1 for x in genomes for g in x)
        assert all(len(x) == dimension for x in genomes)
        if generation == 0:
            assert genomes[: len(first)] == first[:population]
        told = scores(algorithm, genomes), traits(algorithm, genomes)
        state = through_json(algorithm.tell(state, genomes, *told))
        assert state["generation"] == generation + 1


@pytest.mark.parametrize("name", [one for one in ALGORITHMS if one not in ("cma_es", "sobol")])
def test_the_first_population_takes_one_value_in_each_slice(name):
    genomes = np.array(ALGORITHMS[name].ask(ALGORITHMS[name].start(4, 10, 0, [])))
    assert (np.sort(np.floor(genomes * 10), axis=0) == np.arange(10)[:, None]).all()


@every_algorithm
def test_a_search_is_decided_by_its_seed(algorithm):
    assert after(algorithm, 4) == after(algorithm, 4)
    one, other = algorithm.start(3, 7, 5, []), algorithm.start(3, 7, 6, [])
    assert algorithm.ask(one) != algorithm.ask(other)
    assert algorithm.ask(one) != algorithm.ask({**one, "generation": 1})


@every_algorithm
@pytest.mark.parametrize("population", [4, 7])
def test_an_interrupted_search_goes_on_to_the_bit(algorithm, population):
    straight = resumed = algorithm.start(3, population, 5, ENDPOINTS)
    for _ in range(8):
        asked = algorithm.ask(straight)
        for _ in range(3):
            resumed = through_json(resumed)
        assert algorithm.ask(resumed) == asked
        told = scores(algorithm, asked), traits(algorithm, asked)
        straight = algorithm.tell(straight, asked, *told)
        resumed = algorithm.tell(resumed, algorithm.ask(resumed), *told)
        assert straight == resumed


@asynchronous
@pytest.mark.parametrize("ahead", [1, 3])
def test_generations_can_be_asked_ahead(algorithm, ahead):
    state = algorithm.start(3, 7, 5, ENDPOINTS)
    asked = [algorithm.ask(state)]
    for number in range(12):
        while len(asked) <= number + ahead:
            pending = asked[number:]
            following = algorithm.ask(state, pending)
            assert algorithm.ask(through_json(state), through_json(pending)) == following
            assert len(following) == 7
            assert following not in pending
            asked.append(following)
        told = scores(algorithm, asked[number])[:, :1], traits(algorithm, asked[number])
        state = through_json(algorithm.tell(state, asked[number], *told))
        assert state["generation"] == number + 1
        assert "pending" not in state
    if algorithm in learning and algorithm.name != "map_elites":
        mean = [scores(algorithm, one)[:, 0].mean() for one in asked]
        assert np.mean(mean[-3:]) > np.mean(mean[:2])


def test_what_must_be_told_first_cannot_be_asked_ahead():
    state = ALGORITHMS["cma_es"].start(3, 7, 5, [])
    with pytest.raises(ValueError, match="cma_es cannot be asked before it has been told"):
        ALGORITHMS["cma_es"].ask(state, [ALGORITHMS["cma_es"].ask(state)])


@every_algorithm
def test_another_process_asks_the_same(algorithm):
    state = after(algorithm, 3)
    program = (
        "import json, sys\n"
        "from mergelib.evolution.algorithms import ALGORITHMS\n"
        "state = json.load(sys.stdin)\n"
        "json.dump(ALGORITHMS[state['algorithm']].ask(state), sys.stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(state),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == algorithm.ask(state)


@every_algorithm
def test_ask_and_tell_change_neither_their_state_nor_global_random_numbers(algorithm):
    state = after(algorithm, 2, first=ENDPOINTS)
    before = copy.deepcopy(state), random.getstate(), np.random.get_state()  # noqa: NPY002
    genomes = algorithm.ask(state)
    told = scores(algorithm, genomes), traits(algorithm, genomes)
    kept = copy.deepcopy((genomes, told))
    algorithm.tell(state, genomes, *told)
    assert state == before[0]
    assert genomes == kept[0]
    for now, then in zip(told, kept[1], strict=True):
        np.testing.assert_equal(now, then)
    assert random.getstate() == before[1]
    for now, then in zip(np.random.get_state(), before[2], strict=True):  # noqa: NPY002
        np.testing.assert_array_equal(now, then)


@every_algorithm
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("generations", [0, 3])
def test_a_failed_candidate_is_as_if_it_had_not_been_told(algorithm, bad, generations):
    state = after(algorithm, generations, population=8, first=ENDPOINTS)
    genomes = algorithm.ask(state)
    fitness = scores(algorithm, genomes)
    # The better half fails: were it not left out, it would lead.
    failed = fitness[:, 0] > np.median(fitness[:, 0])
    holed = fitness.copy()
    holed[failed, -1] = bad
    left = [x for x, gone in zip(genomes, failed, strict=True) if not gone]
    extra = traits(algorithm, genomes)
    told = algorithm.tell(state, genomes, holed, extra)
    of_left = None if extra is None else extra[~failed]
    assert told == algorithm.tell(state, left, fitness[~failed], of_left)
    assert told != algorithm.tell(state, genomes, fitness, extra) or algorithm not in learning
    json.dumps(told, allow_nan=False)


@every_algorithm
def test_a_generation_that_failed_altogether_only_moves_the_random_numbers_on(algorithm):
    for generations in (0, 3):
        state = after(algorithm, generations)
        genomes = algorithm.ask(state)
        failed = np.full_like(scores(algorithm, genomes), np.nan)
        told = algorithm.tell(state, genomes, failed)
        assert told == {**state, "generation": generations + 1}
        again = algorithm.ask(through_json(told))
        assert len(again) == len(genomes)
        assert again != genomes
        algorithm.tell(told, again, scores(algorithm, again))


@learners
def test_one_survivor_is_enough_to_go_on(algorithm):
    state = algorithm.start(3, 6, 0, [])
    genomes = algorithm.ask(state)
    fitness = scores(algorithm, genomes)
    fitness[1:] = np.nan
    state = algorithm.tell(state, genomes, fitness)
    assert len(algorithm.ask(state)) == 6
    assert algorithm.ask(state) != genomes


@every_algorithm
def test_what_the_user_can_cause_is_said_plainly(algorithm):
    with pytest.raises(InputError, match="every parameter is held fixed"):
        algorithm.start(0, 8, 0, [])
    few = algorithm.smallest_population - 1
    with pytest.raises(InputError, match=f"population {few} is too small for {algorithm.name!r}"):
        algorithm.start(3, few, 0, [])
    assert len(algorithm.ask(algorithm.start(3, few + 1, 0, []))) == few + 1
    if not algorithm.several_objectives:
        state = algorithm.start(3, 4, 0, [])
        with pytest.raises(InputError, match="takes 1 objective, but 2 are given"):
            algorithm.tell(state, algorithm.ask(state), np.zeros((4, 2)))


@every_algorithm
@pytest.mark.parametrize("genome", [[0.5, 0.5], [0.5, 0.5, 1.1], [0.5, np.nan, 0.5]])
def test_what_is_no_genome_is_refused(algorithm, genome):
    with pytest.raises(ValueError, match="not a genome"):
        algorithm.start(3, 4, 0, [genome])
    with pytest.raises(ValueError, match="not a genome"):
        algorithm.tell(algorithm.start(3, 4, 0, []), [genome], np.zeros((1, 1)))


@every_algorithm
def test_fitness_of_another_shape_is_refused(algorithm):
    state = algorithm.start(3, 4, 0, [])
    with pytest.raises(ValueError, match=r"4 genomes, but fitness of shape \(4,\)"):
        algorithm.tell(state, algorithm.ask(state), np.zeros(4))
    with pytest.raises(ValueError, match=r"4 genomes, but fitness of shape \(3, 1\)"):
        algorithm.tell(state, algorithm.ask(state), np.zeros((3, 1)))


@learners
def test_genomes_that_were_not_asked_are_learnt_from(algorithm):
    """As when a run is extended by a sweep, or its population was raced."""
    state = after(algorithm, 2)
    genomes = np.random.default_rng(0).random((11, 3)).tolist()
    told = algorithm.tell(state, genomes, scores(algorithm, genomes), traits(algorithm, genomes))
    assert told != {**state, "generation": 3}
    assert len(algorithm.ask(through_json(told))) == 7


@every_algorithm
def test_without_traits_an_algorithm_goes_on(algorithm):
    state = algorithm.start(3, 6, 0, [])
    for _ in range(3):
        genomes = algorithm.ask(state)
        told = algorithm.tell(state, genomes, scores(algorithm, genomes))
        assert told == algorithm.tell(state, genomes, scores(algorithm, genomes), None)
        state = through_json(told)
    assert len(algorithm.ask(state)) == 6


@pytest.mark.parametrize("name", [one.name for one in ALGORITHMS.values() if one.traits])
def test_traits_that_do_not_fit_are_refused(name):
    algorithm = ALGORITHMS[name]
    state = algorithm.start(3, 4, 0, [])
    genomes = algorithm.ask(state)
    fitness = scores(algorithm, genomes)
    for shape in [(3, 2), (4,), (4, 2, 1)]:
        with pytest.raises(ValueError, match="traits of shape"):
            algorithm.tell(state, genomes, fitness, np.zeros(shape))
    answers = algorithm.traits == "answers"
    width, why = (1, "not above 0") if answers else (2, r"not in \[0, 1\]")
    for value in (-0.1, 0.0 if answers else 1.1, np.inf):
        with pytest.raises(ValueError, match=why):
            algorithm.tell(state, genomes, fitness, np.full((4, width), value))


def test_the_registry_says_what_each_algorithm_takes():
    several = {name for name, one in ALGORITHMS.items() if one.several_objectives}
    assert several == {"bayesian", "mo_cma_es", "nsga2", "nsga3", "random", "sobol", "spea2"}
    for name, algorithm in ALGORITHMS.items():
        assert algorithm.name == name
        assert algorithm.start(2, 5, 0, [])["algorithm"] == name
    for name in several:
        state = ALGORITHMS[name].start(2, 5, 0, [])
        for _ in range(3):
            genomes = ALGORITHMS[name].ask(state)
            x = np.array(genomes)
            state = ALGORITHMS[name].tell(state, genomes, np.stack([*x.T, 1 - x.sum(axis=1)], 1))
