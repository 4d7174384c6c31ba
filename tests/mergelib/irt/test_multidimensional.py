"""Several abilities: recovery in simulations, scipy's optimiser, identification, edges."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.irt import multidimensional
from mergelib.irt.items import ItemBank
from mergelib.irt.multidimensional import calibrate_dimensions, maximum_a_posteriori


def names(count):
    return [f"item {i}" for i in range(count)]


def simulate(models, items, dimensions, seed, asked=1.0):
    """Abilities with mean 0 and covariance I, as the calibration's scale has them."""
    random = np.random.default_rng(seed)
    gamma = random.standard_normal((models, dimensions))
    gamma -= gamma.mean(0)
    gamma = gamma @ np.linalg.inv(np.linalg.cholesky(np.cov(gamma.T, bias=True))).T
    alpha = random.normal(0, 1, (items, dimensions))
    beta = random.normal(0, 1.5, items)
    responses = (random.random((models, items)) < expit(gamma @ alpha.T - beta)).astype(float)
    responses[random.random(responses.shape) >= asked] = np.nan
    return gamma, alpha, beta, responses


def turned(truth, found):
    """The rotation that brings the truth's axes onto those found (Procrustes)."""
    u, _, vt = np.linalg.svd(truth.T @ found)
    return u @ vt


@pytest.mark.parametrize(
    ("models", "items", "dimensions", "asked"), [(200, 200, 2, 1.0), (300, 300, 3, 0.7)]
)
def test_truth_lies_within_the_standard_errors_as_often_as_it_should(
    models, items, dimensions, asked
):
    inside = {"alpha": [], "beta": [], "gamma": []}
    for seed in range(4):
        gamma, alpha, beta, responses = simulate(models, items, dimensions, seed, asked)
        found = calibrate_dimensions(responses, names(items), dimensions)
        bank = found.bank
        turn = turned(alpha, bank.discrimination)
        gamma_se = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
        inside["alpha"] += [
            np.abs(bank.discrimination - alpha @ turn) < 1.96 * bank.discrimination_se
        ]
        inside["beta"] += [np.abs(bank.difficulty - beta) < 1.96 * bank.difficulty_se]
        inside["gamma"] += [np.abs(found.abilities - gamma @ turn) < 1.96 * gamma_se]
    for hits in inside.values():
        assert np.mean(hits) == pytest.approx(0.95, abs=0.025)


def test_scale_and_axes_are_those_promised():
    found = calibrate_dimensions(simulate(80, 60, 3, 1, 0.8)[3], names(60), 3)
    np.testing.assert_allclose(found.abilities.mean(0), 0, atol=1e-9)
    total = np.cov(found.abilities.T, bias=True) + found.covariance.mean(0)
    np.testing.assert_allclose(total, np.eye(3), atol=1e-9)
    alpha = found.bank.discrimination
    strength = alpha.T @ alpha
    np.testing.assert_allclose(strength, np.diag(np.diagonal(strength)), atol=1e-8)
    assert np.all(np.diff(np.diagonal(strength)) < 0)
    assert np.all(alpha.sum(0) > 0)


@pytest.mark.parametrize("held", [False, True])
def test_an_items_step_ends_where_scipy_finds_the_mode(held):
    """Over normal abilities, brute force over draws; held: of no width, so plain regression."""
    gamma, alpha, beta, responses = simulate(80, 6, 2, 2, 0.8)
    random = np.random.default_rng(0)
    spread = np.zeros((80, 2, 2)) if held else np.tile([[0.2, 0.05], [0.05, 0.1]], (80, 1, 1))
    asked = (~np.isnan(responses)).astype(float)
    right = np.nan_to_num(responses)
    normal = random.standard_normal((2000, 2))
    root = np.zeros((2, 2)) if held else np.linalg.cholesky(spread[0])
    draws = gamma[:, None, :] + np.vstack([normal, -normal]) @ root.T  # (80, 4000, 2)
    found, at = alpha, beta
    for _ in range(60):
        found, at, _ = multidimensional._item_step(found, at, gamma, spread, right, asked)
    centre = at.sum() / 4 / (6 / 4 + 1 / 25)
    for item in range(2):
        seen = asked[:, item] > 0

        def loss(x, y=right[seen, item], some=draws[seen][:, :: 4000 if held else 1]):
            z = some @ x[:2] - x[2]
            prior = x[:2] @ x[:2] / 2 + (x[2] - centre) ** 2 / 8
            return (np.logaddexp(0, z) - y[:, None] * z).mean(1).sum() + prior

        best = minimize(loss, np.append(found[item], at[item]), method="BFGS").x
        np.testing.assert_allclose(found[item], best[:2], atol=1e-3 if held else 0.03)
        assert at[item] == pytest.approx(best[2], abs=1e-3 if held else 0.03)


def test_discriminations_are_not_far_off_with_few_items():
    slopes = []
    for seed in range(4):
        _, alpha, _, responses = simulate(400, 30, 2, seed)
        found = calibrate_dimensions(responses, names(30), 2).bank.discrimination
        truth = alpha @ turned(alpha, found)
        slopes.append((found * truth).sum() / (truth**2).sum())
    assert np.mean(slopes) == pytest.approx(0.93, abs=0.07)  # the prior shrinks them


def make_bank(items=40, dimensions=2, seed=3):
    random = np.random.default_rng(seed)
    alpha = random.normal(0, 1, (items, dimensions))
    return ItemBank(
        tuple(names(items)),
        alpha,
        random.normal(0, 1, items),
        np.zeros_like(alpha),
        np.zeros(items),
    )


def test_abilities_are_scipys_and_their_curvature_that_of_differences():
    random = np.random.default_rng(4)
    bank = make_bank()
    responses = (random.random((6, 40)) < 0.5).astype(float)
    responses[random.random(responses.shape) < 0.4] = np.nan
    mean, covariance = np.array([0.3, -0.2]), np.array([[0.5, 0.2], [0.2, 0.8]])
    found = maximum_a_posteriori(responses, bank, mean=mean, covariance=covariance)
    for row, mode, spread in zip(responses, *found, strict=True):
        seen = ~np.isnan(row)

        def gradient(g, y=row[seen], seen=seen):
            p = expit(bank.discrimination[seen] @ g - bank.difficulty[seen])
            prior = np.linalg.solve(covariance, g - mean)
            return (p - y) @ bank.discrimination[seen] + prior

        np.testing.assert_allclose(gradient(mode), 0, atol=1e-7)
        hessian = [(gradient(mode + h) - gradient(mode - h)) / 2e-5 for h in 1e-5 * np.eye(2)]
        np.testing.assert_allclose(np.linalg.inv(hessian), spread, rtol=1e-5)


def test_very_sharp_items_do_not_make_the_steps_swing():
    random = np.random.default_rng(5)
    alpha = random.normal(0, 12, (30, 2))
    bank = ItemBank(
        tuple(names(30)), alpha, random.normal(0, 8, 30), np.zeros_like(alpha), np.zeros(30)
    )
    responses = (random.random((200, 30)) < 0.5).astype(float)
    mode = maximum_a_posteriori(responses, bank, iterations=500).mode
    residual = responses - bank.probability(mode)
    np.testing.assert_allclose(residual @ alpha, mode, atol=1e-5)  # the score is 0


def test_all_right_all_wrong_and_nothing():
    bank = make_bank()
    responses = np.vstack([np.ones(40), np.zeros(40), np.full(40, np.nan)])
    found = maximum_a_posteriori(responses, bank)
    assert np.all(np.isfinite(found.mode))
    assert np.all(np.isfinite(found.covariance))
    np.testing.assert_array_equal(found.mode[2], 0)
    np.testing.assert_allclose(found.covariance[2], np.eye(2))
    empty = maximum_a_posteriori(np.empty((0, 40)), bank)
    assert empty.mode.shape == (0, 2)
    nothing = maximum_a_posteriori(np.full((2, 40), np.nan), bank)
    np.testing.assert_array_equal(nothing.mode, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "responses",
    [
        np.ones((5, 4)),
        np.zeros((5, 4)),
        np.tile([1.0, 0.0, 1.0, 1.0], (6, 1)),
        np.where(np.eye(6) > 0, 1.0, np.nan),
        np.vstack([np.ones((3, 80)), np.zeros((3, 80)), np.full((1, 80), np.nan)]),
    ],
    ids=["all right", "all wrong", "all alike", "a cell each", "far apart"],
)
def test_little_or_strange_responses_give_finite_numbers(responses):
    found = calibrate_dimensions(responses, names(responses.shape[1]), 2)
    bank = found.bank
    for values in (
        *(bank.discrimination, bank.difficulty, bank.discrimination_se, bank.difficulty_se),
        *(found.abilities, found.covariance),
    ):
        assert np.all(np.isfinite(values))


def test_what_is_refused():
    with pytest.raises(InputError, match="9 abilities from 10 models and 5 items; give 2 to 4"):
        calibrate_dimensions(np.ones((10, 5)), names(5), 9)
    with pytest.raises(InputError, match="1 abilities from 10 models"):
        calibrate_dimensions(np.ones((10, 5)), names(5), 1)
    with pytest.raises(InputError, match="use `calibrate`"):
        calibrate_dimensions(np.ones((10, 2)), names(2), 2)
    with pytest.raises(InputError, match=r"0\.5 for item 'item 0' in row 0"):
        calibrate_dimensions(np.full((10, 5), 0.5), names(5), 2)
    with pytest.raises(InputError, match="at least 2"):
        calibrate_dimensions(np.ones((1, 5)), names(5), 2)
    single = ItemBank(("a",), np.ones(1), np.ones(1), np.ones(1), np.ones(1))
    with pytest.raises(InputError, match="one dimension"):
        maximum_a_posteriori(np.ones((1, 1)), single)
    with pytest.raises(InputError, match="do not fit 2 abilities"):
        maximum_a_posteriori(np.ones((1, 40)), make_bank(), mean=np.zeros(3))
    with pytest.raises(InputError, match="does not fit a bank of 40"):
        maximum_a_posteriori(np.ones((1, 3)), make_bank())
