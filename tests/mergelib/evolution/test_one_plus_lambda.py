import numpy as np
import pytest

from mergelib.evolution import one_plus_lambda as opl


def covariance(state: dict) -> np.ndarray:
    A = np.array(state["A"])
    return A @ A.T


def started(dimension: int, population: int, value: float = 0.0) -> dict:
    state = opl.start(dimension, population, 0, [])
    middle = [0.5] * dimension
    return opl.tell(state, [middle], np.array([[value]]))


def test_the_best_of_the_first_population_is_the_parent(sphere):
    state = opl.start(3, 8, 0, [[0.1, 0.2, 0.3]])
    genomes = opl.ask(state)
    fitness = sphere(np.array(genomes))
    state = opl.tell(state, genomes, fitness)
    assert state["parent"] == genomes[int(fitness.argmax())]
    assert state["sigma"] == opl.FIRST_SIGMA


@pytest.mark.parametrize("dimension", [1, 4])
def test_a_success_updates_as_igel_hansen_and_roth_say(dimension):
    state = started(dimension, 5)
    d, lam = dimension, 5
    p_target, c_c, c_cov = 1 / (5 + lam**0.5 / 2), 2 / (d + 2), 2 / (d**2 + 6)
    c_p, damping = p_target * lam / (2 + p_target * lam), 1 + d / (2 * lam)
    for generation in range(1, 7):
        genomes = opl.ask(state)
        fitness = np.array([[generation], [-1.0], [-2.0], [generation - 1.0], [-4.0]])
        told = opl.tell(state, genomes, fitness)
        p = (1 - c_p) * state["psucc"] + c_p * 2 / 5
        step = (np.array(genomes[0]) - state["parent"]) / state["sigma"]
        C, pc = covariance(state), np.array(state["pc"])
        if p < 0.44:
            pc = (1 - c_c) * pc + np.sqrt(c_c * (2 - c_c)) * step
            C = (1 - c_cov) * C + c_cov * np.outer(pc, pc)
        else:
            pc = (1 - c_c) * pc
            C = (1 - c_cov) * C + c_cov * (np.outer(pc, pc) + c_c * (2 - c_c) * C)
        assert told["parent"] == genomes[0]
        assert told["fitness"] == [generation]
        assert told["psucc"] == pytest.approx(p)
        sigma = state["sigma"] * np.exp((p - p_target) / (1 - p_target) / damping)
        assert told["sigma"] == pytest.approx(min(sigma, 1.0))
        np.testing.assert_allclose(told["pc"], pc, rtol=1e-9)
        if p < 0.44:  # DEAP's other branch rounds c_cov c_c (2 - c_c) into another factor
            np.testing.assert_allclose(covariance(told), C, rtol=1e-9, atol=1e-12)
        state = told


def test_a_child_worse_than_the_fifth_ancestor_is_unlearnt():
    d = 4
    state = {**started(d, 3), "ancestors": [[v] for v in (-5.0, -4.0, -3.0, -2.0, 0.0)]}
    genomes = opl.ask(state)
    told = opl.tell(state, genomes, np.array([[-6.0], [-7.0], [-8.0]]))
    step = (np.array(genomes[0]) - state["parent"]) / state["sigma"]
    z = np.linalg.solve(np.array(state["A"]), step)
    c = min(0.4 / (d**1.6 + 1), 1 / (2 * (z @ z) - 1))
    # Arnold and Hansen (2010), eq. 7: the variance along the step shrinks.
    expected = (1 + c) * covariance(state) - c * np.outer(step, step)
    np.testing.assert_allclose(covariance(told), expected, rtol=1e-9, atol=1e-12)
    assert told["parent"] == state["parent"]
    assert told["sigma"] < state["sigma"]
    better = opl.tell(state, genomes, np.array([[-4.5], [-7.0], [-8.0]]))
    assert better["A"] == state["A"]


def test_ancestors_are_the_last_five():
    state = started(2, 2)
    for value in range(1, 9):
        state = opl.tell(state, opl.ask(state), np.array([[value], [-1.0]]))
    assert state["ancestors"] == [[4.0], [5.0], [6.0], [7.0], [8.0]]


def test_a_parent_that_is_told_again_has_its_newer_fitness():
    state = started(3, 4, value=0.9)
    child = opl.ask(state)[0]
    again = opl.tell(state, [state["parent"]], np.array([[0.3]]))
    assert (again["parent"], again["fitness"]) == (state["parent"], [0.3])
    assert again["sigma"] == state["sigma"]
    moved = opl.tell(state, [child, state["parent"]], np.array([[0.5], [0.3]]))
    assert moved["parent"] == child
    assert opl.tell(state, [child], np.array([[0.5]]))["parent"] == state["parent"]


@pytest.mark.parametrize("shape", ["flat", "slope", "ill_conditioned"])
def test_long_searches_end_in_usable_states(shape):
    functions = {
        "flat": lambda x: np.zeros((len(x), 1)),
        "slope": lambda x: x.sum(axis=1, keepdims=True),
        "ill_conditioned": lambda x: -(((x - 0.3) ** 2) @ np.logspace(0, 8, 5)[:, None]),
    }
    state = opl.start(5, 8, 0, [])
    for _ in range(600):
        genomes = opl.ask(state)
        state = opl.tell(state, genomes, functions[shape](np.array(genomes)))
    assert np.linalg.cond(state["A"]) < 2 * opl.LARGEST_CONDITION
    assert opl.SIGMA_RANGE[0] <= state["sigma"] <= opl.SIGMA_RANGE[1]


def test_a_spoilt_factor_is_mended():
    U = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3))).Q
    mended = opl.well_conditioned((U * np.array([1.0, 1e-3, 1e-20])) @ U.T)
    np.testing.assert_allclose(np.linalg.svd(mended).S, [1, 1e-3, 1e-7], rtol=1e-6)


def test_a_genome_from_afar_is_learnt_from_as_the_longest_step_allowed():
    state = {**started(4, 3), "sigma": 0.01}
    told = opl.tell(state, [[1.0] * 4], np.array([[1.0]]))
    assert told["parent"] == [1.0] * 4
    limit = 2 + 8 / 6
    step = np.full(4, limit / 2)
    c_c = 2 / 6
    np.testing.assert_allclose(told["pc"], np.sqrt(c_c * (2 - c_c)) * step, rtol=1e-9)


def test_steps_that_have_collapsed_start_anew_around_the_parent():
    state = {**started(3, 4, value=1.0), "generation": 7, "sigma": 1e-9, "psucc": 0.1}
    genomes = opl.ask(state)
    told = opl.tell(state, genomes, np.zeros((4, 1)))
    fresh = opl.start(3, 4, 0, [])
    assert told["parent"] == state["parent"]
    assert {name: told[name] for name in ("sigma", "A", "pc", "psucc")} == {
        name: fresh[name] for name in ("sigma", "A", "pc", "psucc")
    }
    wide = opl.tell({**state, "sigma": 2e-9}, genomes, np.zeros((4, 1)))
    assert 1e-9 < wide["sigma"] < 2e-9
