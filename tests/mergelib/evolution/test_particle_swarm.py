import numpy as np
import pytest

from mergelib.evolution import particle_swarm as pso
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.evolution.randomness import generator


def test_constriction_is_clerc_and_kennedys():
    phi = 2 * pso.PHI
    assert pytest.approx(2 / abs(2 - phi - np.sqrt(phi**2 - 4 * phi))) == pso.CHI
    assert pytest.approx(0.72984, abs=1e-5) == pso.CHI


def moved(state: dict) -> tuple[np.ndarray, np.ndarray]:
    """Where each gene of each particle goes, one after the other."""
    x, v, p = (np.array(state[name]) for name in ("x", "v", "best"))
    leader = p[max(range(len(p)), key=lambda i: state["fitness"][i])]
    draws = generator(state["seed"], state["generation"], "pso").random((2, *x.shape))
    for i, j in np.ndindex(*x.shape):
        own = 2.05 * draws[0, i, j] * (p[i, j] - x[i, j])
        swarm = 2.05 * draws[1, i, j] * (leader[j] - x[i, j])
        v[i, j] = min(max(pso.CHI * (v[i, j] + own + swarm), -0.5), 0.5)
        x[i, j] += v[i, j]
        if not 0 <= x[i, j] <= 1:
            x[i, j], v[i, j] = min(max(x[i, j], 0.0), 1.0), -v[i, j] / 2
    return x, v


def test_particles_move_by_the_formula_and_remember_their_best(sphere):
    state = pso.start(4, 6, 1, [])
    seen: list[list[tuple[float, list[float]]]] = [[] for _ in range(6)]
    faces = 0
    for generation in range(15):
        genomes = pso.ask(state)
        if generation:
            x, v = moved(state)
            np.testing.assert_allclose(genomes, x, rtol=0, atol=1e-14)
            faces += int(((x == 0) | (x == 1)).sum())
        fitness = sphere(np.array(genomes))
        state = pso.tell(state, genomes, fitness)
        for particle in range(6):
            seen[particle].append((fitness[particle, 0], genomes[particle]))
        assert state["x"] == genomes
        best = [max(history) for history in seen]
        assert list(zip(state["fitness"], state["best"], strict=True)) == best
        if generation:
            np.testing.assert_allclose(state["v"], v, rtol=0, atol=1e-14)
    assert faces > 0
    assert np.abs(state["v"]).max() <= 0.5


@pytest.mark.parametrize("seed", range(3))
def test_the_swarm_comes_off_the_faces(evolve, sphere, seed):
    budget = {"dimension": 10, "population": 30, "generations": 200, "seed": seed}
    search = evolve(ALGORITHMS["pso"], sphere, **budget)
    # Every second gene is best at .95, close to a face.
    assert search.fitness.max() > -1e-6


def test_a_failed_particle_stays_and_tries_another_way(sphere):
    state = pso.start(3, 5, 0, [])
    for _ in range(2):
        genomes = pso.ask(state)
        state = pso.tell(state, genomes, sphere(np.array(genomes)))
    genomes = pso.ask(state)
    fitness = sphere(np.array(genomes))
    fitness[2] = np.nan
    after = pso.tell(state, genomes, fitness)
    for name in ("x", "v", "best", "fitness"):
        assert after[name][2] == state[name][2]
    assert after["x"][:2] == genomes[:2]
    assert after["x"][3:] == genomes[3:]
    assert pso.ask(after)[2] != genomes[2]


def test_a_best_that_is_told_again_has_its_newer_fitness():
    state = pso.start(1, 2, 0, [])
    state = pso.tell(state, [[0.2], [0.61]], np.array([[1.0], [2.0]]))
    state = pso.tell(state, [[0.61]], np.array([[0.5]]))
    assert state["best"] == [[0.2], [0.61]]
    assert state["fitness"] == [1.0, 0.5]
    # A stranger can only be a best, of the particle whose best is closest.
    state = pso.tell(state, [[0.55], [0.3]], np.array([[0.8], [0.9]]))
    assert state["best"] == [[0.2], [0.55]]
    assert state["fitness"] == [1.0, 0.8]
    assert state["x"] == [[0.2], [0.61]]


def test_particles_that_failed_at_first_come_later():
    state = pso.start(2, 4, 0, [])
    genomes = pso.ask(state)
    fitness = np.array([1.0, np.nan, 2.0, np.nan])[:, None]
    state = pso.tell(state, genomes, fitness)
    assert state["x"] == [genomes[0], genomes[2]]
    later = pso.ask(state)
    state = pso.tell(state, later, np.zeros((4, 1)))
    assert state["x"] == later
    assert state["v"][2:] == [[0.0, 0.0]] * 2
