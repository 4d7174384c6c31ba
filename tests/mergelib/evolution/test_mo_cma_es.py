import numpy as np
import pytest
from deap import base, cma, creator

from mergelib.evolution import mo_cma_es as mo
from mergelib.evolution.population import places


@pytest.fixture(scope="module")
def individual():
    """Make individuals the way DEAP's manual does, for two objectives."""
    creator.create("OracleFront", base.Fitness, weights=(1.0, 1.0))
    creator.create("OracleMember", list, fitness=creator.OracleFront)

    def make(x, values, origin):
        one = creator.OracleMember(x)
        one.fitness.values = tuple(values)
        one._ps = origin
        return one

    yield make
    del creator.OracleMember, creator.OracleFront


class Oracle(cma.StrategyMultiObjective):
    """DEAP's, with C updated as it is defined rather than through its factor."""

    def _rankOneUpdate(self, invCholesky, A, alpha, beta, v):
        A = np.linalg.cholesky(alpha * A @ A.T + beta * np.outer(v, v))
        return np.linalg.inv(A), A


def two_spheres(x: np.ndarray) -> np.ndarray:
    return -np.stack([((x - 0.4) ** 2).sum(axis=1), ((x - 0.6) ** 2).sum(axis=1)], axis=1)


def test_updates_are_deaps(individual):
    d, population = 3, 6
    state = mo.start(d, population, 2, [])
    genomes = mo.ask(state)
    fitness = two_spheres(np.array(genomes))
    state = mo.tell(state, genomes, fitness)
    oracle = Oracle(
        [individual(x, f, ("p", i)) for i, (x, f) in enumerate(zip(genomes, fitness, strict=True))],
        mo.FIRST_SIGMA,
        mu=population,
        lambda_=population,
    )
    inside = 0
    for _ in range(12):
        genomes = mo.ask(state)
        drawn = mo._children(state)
        fitness = two_spheres(np.array(genomes))
        # Both keep the same parents, in another order perhaps.
        order = places(state["x"], [list(one) for one in oracle.parents])
        assert sorted(order) == list(range(population))
        number = {mine: theirs for theirs, mine in enumerate(order)}
        way = ((drawn - np.array(genomes)) ** 2).sum(axis=1, keepdims=True)
        inside += int((way == 0).sum())
        for theirs, parent in enumerate(oracle.parents):
            parent._ps = ("p", theirs)
        children = zip(drawn.tolist(), fitness - 1e-6 * way, strict=True)
        oracle.update(
            [individual(x, f, ("o", number[mine])) for mine, (x, f) in enumerate(children)]
        )
        state = mo.tell(state, genomes, fitness)
        order = places(state["x"], [list(one) for one in oracle.parents])
        assert sorted(order) == list(range(population))
        np.testing.assert_allclose(np.array(state["sigma"])[order], oracle.sigmas, rtol=1e-9)
        np.testing.assert_allclose(np.array(state["psucc"])[order], oracle.psucc, rtol=1e-9)
        np.testing.assert_allclose(np.array(state["pc"])[order], oracle.pc, rtol=1e-7, atol=1e-12)
        ours = mo._square(state["A"], d)[order]
        for A, factor in zip(oracle.A, ours, strict=True):
            np.testing.assert_allclose(factor @ factor.T, A @ A.T, rtol=1e-7, atol=1e-10)
    assert 20 < inside < 12 * population


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("objectives", [2, 3])
def test_selects_those_that_brute_force_selects(seed, objectives):
    # Multiples of a quarter: many are dominated, and contributions differ enough to be compared.
    scores = np.random.default_rng(seed).random((11, objectives))
    scores = scores.round(1) + 1e-3 * scores
    members = mo._members(np.full((11, 1), 0.5), scores.tolist(), [("p", n) for n in range(11)])
    strategy = mo._Strategy(members, 0.1, mu=5, lambda_=5)
    chosen, dropped = strategy._select(members)
    assert sorted(one._ps[1] for one in [*chosen, *dropped]) == list(range(11))
    left, expected = list(range(11)), []
    while len(expected) < 5:
        front = [
            a
            for a in left
            if not any(
                (scores[b] >= scores[a]).all() and (scores[b] > scores[a]).any() for b in left
            )
        ]
        left = [row for row in left if row not in front]
        while len(expected) + len(front) > 5:
            without = [
                volume(np.delete(scores[front], i, axis=0), scores) for i in range(len(front))
            ]
            front.pop(int(np.argmax(without)))
        expected += front
    assert sorted(one._ps[1] for one in chosen) == sorted(expected)


def volume(front: np.ndarray, everyone: np.ndarray) -> float:
    """By the grid of all coordinates: the cells that some member dominates."""
    axes = [
        np.unique(np.append(front[:, k], everyone[:, k].min() - 1)) for k in range(front.shape[1])
    ]
    cells = np.stack(np.meshgrid(*[axis[1:] for axis in axes], indexing="ij"), axis=-1)
    sizes = np.ones(cells.shape[:-1])
    for k, axis in enumerate(axes):
        shape = [1] * front.shape[1]
        shape[k] = -1
        sizes = sizes * np.diff(axis).reshape(shape)
    covered = (front >= cells[..., None, :]).all(axis=-1).any(axis=-1)
    return float(sizes[covered].sum())


@pytest.mark.parametrize("v", [[-0.5], [0.5]])
def test_a_covariance_grows_along_a_step_whatever_its_sign(v):
    strategy = mo._Strategy(mo._members(np.array([[0.5]]), [[0.0, 0.0]], [("p", 0)]), 0.1)
    A = np.array([[2.0]])
    inverse, A = strategy._rankOneUpdate(np.linalg.inv(A), A, 0.8, 0.2, np.array(v))
    np.testing.assert_allclose(A @ A.T, 0.8 * 4 + 0.2 * 0.25)
    np.testing.assert_allclose(inverse @ A, 1.0)


def test_what_is_asked_is_the_closest_genome_and_what_is_kept_the_place_itself():
    state = mo.start(2, 2, 0, [])
    at = [[0.0, 0.3], [1.0, 0.7]]
    state = mo.tell(state, at, np.array([[1.0, 0.0], [0.0, 1.0]]))
    state = {**state, "sigma": [2.0, 2.0]}
    drawn, genomes = mo._children(state), mo.ask(state)
    assert np.abs(drawn - 0.5).max() > 0.5
    np.testing.assert_array_equal(genomes, np.clip(drawn, 0, 1))
    told = mo.tell(state, genomes, np.array([[3.0, 2.0], [2.0, 3.0]]))
    assert sorted(told["x"]) == sorted(drawn.tolist())
    assert sorted(told["fitness"]) == [[2.0, 3.0], [3.0, 2.0]]
    # Of two that are worth the same, the one that is inside the box.
    near, far = mo._members(np.array([[0.9], [1.4]]), [[1.0, 1.0]] * 2, [("o", 0)] * 2)
    assert near.fitness.values == (1.0, 1.0)
    assert far.fitness.values == pytest.approx((1 - 0.16e-6,) * 2, abs=1e-12)
    assert near.fitness.dominates(far.fitness)


def test_a_parent_that_is_told_again_has_its_newer_fitness():
    state = mo.start(1, 2, 0, [])
    state = mo.tell(state, [[0.2], [0.7]], np.array([[1.0, 0.0], [0.0, 1.0]]))
    again = mo.tell(state, [[0.7]], np.array([[0.2, 0.3]]))
    assert again["x"] == [[0.2], [0.7]]
    assert again["fitness"] == [[1.0, 0.0], [0.2, 0.3]]
    assert (again["sigma"], again["psucc"]) == (state["sigma"], state["psucc"])


def test_if_parents_are_few_some_of_the_first_front_have_more_children():
    state = mo.start(2, 9, 0, [])
    at = [[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]
    state = mo.tell(state, at, np.array([[1.0, 0.0], [-1.0, -1.0], [0.0, 1.0]]))
    state = {**state, "sigma": [1e-6] * 3}
    closest = [
        min(range(3), key=lambda p: np.abs(np.subtract(x, at[p])).max()) for x in mo.ask(state)
    ]
    assert closest[:3] == [0, 1, 2]
    assert set(closest[3:]) == {0, 2}


@pytest.mark.parametrize("shape", ["flat", "slope", "one_gene_matters"])
def test_long_searches_end_in_usable_states(shape):
    functions = {
        "flat": lambda x: np.zeros((len(x), 2)),
        "slope": lambda x: np.stack([x.sum(axis=1), x[:, 0] - x[:, 1]], axis=1),
        "one_gene_matters": lambda x: -np.stack([(x[:, 0] - a) ** 2 for a in (0.3, 0.300001)], 1),
    }
    state = mo.start(4, 6, 0, [])
    for _ in range(1500):
        genomes = mo.ask(state)
        state = mo.tell(state, genomes, functions[shape](np.array(genomes)))
    assert np.abs(state["x"]).max() < 1e3
    for factor in mo._square(state["A"], 4):
        assert np.linalg.cond(factor) < 2 * mo.LARGEST_CONDITION


def test_a_spoilt_factor_is_mended_and_the_others_are_as_they_were():
    rng = np.random.default_rng(0)
    good, bad = rng.standard_normal((2, 3, 3))
    U, _, V = np.linalg.svd(bad)
    factors = mo._factors(np.array([good, (U * np.array([1.0, 1e-3, 1e-20])) @ V]))
    np.testing.assert_array_equal(factors, np.tril(factors))
    np.testing.assert_allclose(factors[0] @ factors[0].T, good @ good.T)
    np.testing.assert_allclose(np.linalg.svd(factors[1]).S, [1, 1e-3, 1e-7], rtol=1e-6)
