"""Abilities against scipy's optimisers and brute-force sums over the grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.irt.ability import (
    ParentPrior,
    gaussian_weights,
    log_likelihood_grid,
    maximum_a_posteriori,
    maximum_likelihood,
    parent_prior_weights,
    posterior,
    posterior_mean,
)
from mergelib.irt.bank import GRID, ItemBank


def make_bank(items=30, seed=0):
    rng = np.random.default_rng(seed)
    return ItemBank(
        tuple(f"item {i}" for i in range(items)),
        np.exp(rng.normal(0.2, 0.4, items)),
        rng.normal(0, 1.5, items),
        np.zeros(items),
        np.zeros(items),
    )


def answers(bank, gamma, rng, asked=1.0):
    p = bank.probability(np.asarray(gamma))
    responses = (rng.random(p.shape) < p).astype(float)
    responses[rng.random(p.shape) >= asked] = np.nan
    return responses


def log_likelihood(gamma, row, bank):
    seen = ~np.isnan(row)
    z = bank.discrimination[seen] * gamma - bank.difficulty[seen]
    return float(np.log(expit((2 * row[seen] - 1) * z)).sum())


@pytest.fixture
def case():
    rng = np.random.default_rng(1)
    bank = make_bank()
    return bank, answers(bank, rng.standard_normal(12), rng, asked=0.6)


def test_grid_log_likelihood_is_the_sum_over_cells(case):
    bank, responses = case
    grid = np.array([-1.5, 0.0, 2.0])
    expected = [[log_likelihood(g, row, bank) for g in grid] for row in responses]
    np.testing.assert_allclose(log_likelihood_grid(responses, bank, grid), expected)


def test_maximum_likelihood_is_scipys(case):
    bank, responses = case
    for row, found in zip(responses, maximum_likelihood(responses, bank), strict=True):
        best = minimize_scalar(
            lambda g, row=row: -log_likelihood(g, row, bank),
            bounds=(-6, 6),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert found == pytest.approx(best.x, abs=1e-5)


def test_maximum_a_posteriori_is_scipys(case):
    bank, responses = case
    found = maximum_a_posteriori(responses, bank, mean=0.5, sd=0.7)
    for row, value in zip(responses, found, strict=True):
        best = minimize_scalar(
            lambda g, row=row: -log_likelihood(g, row, bank) + ((g - 0.5) / 0.7) ** 2 / 2,
            bounds=(-6, 6),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert value == pytest.approx(best.x, abs=1e-5)


def test_all_right_all_wrong_and_nothing():
    bank = make_bank()
    responses = np.vstack([np.ones(30), np.zeros(30), np.full(30, np.nan)])
    np.testing.assert_array_equal(maximum_likelihood(responses, bank), [6, -6, np.nan])
    found = maximum_a_posteriori(responses, bank, mean=0.3)
    assert -6 < found[1] < 0.3 < found[0] < 6
    assert found[2] == pytest.approx(0.3)
    prior = gaussian_weights(0.3, 1.0)
    np.testing.assert_allclose(posterior(responses, bank, prior)[2], prior)


def test_posterior_is_bayes_theorem(case):
    bank, responses = case
    prior = gaussian_weights(0.2, 0.8)
    weights = posterior(responses, bank, prior)
    for row, found in zip(responses, weights, strict=True):
        joint = prior * np.exp([log_likelihood(g, row, bank) for g in GRID])
        np.testing.assert_allclose(found, joint / joint.sum(), atol=1e-12)
    np.testing.assert_allclose(posterior_mean(weights), (weights * GRID).sum(1))
    rows = np.tile(prior, (len(responses), 1))
    np.testing.assert_allclose(posterior(responses, bank, rows), weights)


def test_posterior_mean_is_calibrated_on_simulated_models():
    rng = np.random.default_rng(2)
    bank, gamma = make_bank(), rng.standard_normal(4000)
    weights = posterior(answers(bank, gamma, rng, 0.5), bank, gaussian_weights(0, 1))
    mean = posterior_mean(weights)
    variance = weights @ GRID**2 - mean**2
    assert np.mean(gamma - mean) == pytest.approx(0, abs=0.03)
    assert np.mean((gamma - mean) ** 2 / variance) == pytest.approx(1, abs=0.06)


@given(seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    bank = make_bank()
    responses = answers(bank, rng.standard_normal(5), rng, 0.5)
    columns, rows = rng.permutation(30), rng.permutation(5)
    mixed = ItemBank(
        tuple(bank.items[i] for i in columns),
        bank.discrimination[columns],
        bank.difficulty[columns],
        bank.discrimination_se,
        bank.difficulty_se,
    )
    np.testing.assert_allclose(
        maximum_likelihood(responses[rows][:, columns], mixed),
        maximum_likelihood(responses, bank)[rows],
        atol=1e-7,
    )


def test_parent_prior_is_the_mixture():
    prior = ParentPrior(mean_sd=0.2, best_sd=0.4, wide_sd=1.5, wide_weight=0.3)
    weights = parent_prior_weights(np.array([-1.0, 1.0]), prior)
    assert weights.sum() == pytest.approx(1)
    # means 0, 1 and 0 with weights .35, .35 and .3; E[g^2] = sum of weight (mean^2 + sd^2)
    assert weights @ GRID == pytest.approx(0.35, abs=1e-3)
    second = 0.35 * 0.2**2 + 0.35 * (1 + 0.4**2) + 0.3 * 1.5**2
    assert weights @ GRID**2 == pytest.approx(second, abs=0.01)


def test_bad_input_is_refused():
    bank = make_bank(3)
    with pytest.raises(InputError, match="does not fit a bank of 3"):
        maximum_likelihood(np.zeros((2, 4)), bank)
    with pytest.raises(InputError, match=r"0\.5 for item 'item 1' in row 0"):
        log_likelihood_grid(np.array([[0, 0.5, 1]]), bank)
    with pytest.raises(InputError, match="prior"):
        posterior(np.zeros((1, 3)), bank, np.ones(4))
    with pytest.raises(InputError, match="widths"):
        ParentPrior(mean_sd=0.0)
