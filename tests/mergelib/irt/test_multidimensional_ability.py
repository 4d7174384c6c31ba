"""Maximum likelihood of several abilities against scipy's bounded minimisation."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.irt import ability
from mergelib.irt.items import ItemBank
from mergelib.irt.multidimensional_ability import (
    LIMIT,
    likeliest,
    maximum_likelihood,
    spanned_maximum_likelihood,
)

ITEMS = 60


def simulate(d, models=8, seed=0):
    rng = np.random.default_rng(seed)
    alpha = rng.normal(0.3, 0.9, (ITEMS, d))
    beta = rng.normal(0, 1, ITEMS)
    p = expit(rng.standard_normal((models, d)) @ alpha.T - beta)
    responses = (rng.random(p.shape) < p).astype(float)
    responses[rng.random(p.shape) < 0.4] = np.nan
    return responses, alpha, beta


def negative(gamma, row, alpha, beta):
    seen = ~np.isnan(row)
    z = alpha[seen] @ gamma - beta[seen]
    return float(np.logaddexp(0, z).sum() - row[seen] @ z)


def by_scipy(row, alpha, beta):
    """The best of several bounded minimisations."""
    d = alpha.shape[1]
    starts = [np.zeros(d), np.ones(d), -np.ones(d), np.full(d, 3.0)]
    found = [
        minimize(
            negative,
            start,
            (row, alpha, beta),
            method="L-BFGS-B",
            bounds=[(-LIMIT, LIMIT)] * d,
            options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 2000},
        )
        for start in starts
    ]
    return min(found, key=lambda one: one.fun)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_it_is_scipys_maximum(d):
    responses, alpha, beta = simulate(d)
    found = maximum_likelihood(responses, alpha, beta)
    for row, gamma in zip(responses, found, strict=True):
        expected = by_scipy(row, alpha, beta)
        assert negative(gamma, row, alpha, beta) <= expected.fun + 1e-8
        np.testing.assert_allclose(gamma, expected.x, atol=2e-3)


@pytest.mark.parametrize("d", [2, 3])
def test_all_right_and_few_responses_stay_within_bounds(d):
    responses, alpha, beta = simulate(d)
    responses[0] = 1.0
    responses[1] = 0.0
    responses[2, 1:] = np.nan  # fewer than dimensions
    responses[2, 0] = 1.0
    responses[3] = np.nan
    found = maximum_likelihood(responses, alpha, beta)
    assert np.isnan(found[3]).all()
    assert np.all(np.abs(found[[0, 1, 2]]) <= LIMIT)
    for row in (0, 1, 2):
        expected = by_scipy(responses[row], alpha, beta)
        assert negative(found[row], responses[row], alpha, beta) <= expected.fun + 1e-6


@pytest.mark.parametrize(("d", "endpoints"), [(3, 1), (3, 2), (5, 2)])
def test_the_best_in_the_endpoints_span_is_scipys(d, endpoints):
    responses, alpha, beta = simulate(d)
    span = np.random.default_rng(1).standard_normal((endpoints, d))
    found = spanned_maximum_likelihood(responses, alpha, beta, span)
    for row, gamma in zip(responses, found, strict=True):
        best = minimize(
            lambda mix, row=row: negative(mix @ span, row, alpha, beta),
            np.full(endpoints, 1 / endpoints),
            method="BFGS",
            options={"gtol": 1e-8},
        )
        np.testing.assert_allclose(gamma, best.x @ span, atol=1e-3)


def test_a_span_of_all_dimensions_or_of_none():
    responses, alpha, beta = simulate(2)
    responses[1] = np.nan
    span = np.array([[1.0, 0.3], [-0.4, 1.0], [0.6, 1.3]])
    np.testing.assert_allclose(
        spanned_maximum_likelihood(responses, alpha, beta, span),
        maximum_likelihood(responses, alpha, beta),
    )
    nowhere = spanned_maximum_likelihood(responses, alpha, beta, np.zeros((2, 2)))
    assert np.isnan(nowhere[1]).all()
    assert np.all(np.delete(nowhere, 1, axis=0) == 0)


def test_likeliest_takes_any_bank():
    responses, alpha, beta = simulate(2)
    names, nothing = tuple(map(str, range(ITEMS))), np.zeros(ITEMS)
    one = ItemBank(names, np.exp(alpha[:, 0]), beta, nothing, nothing)
    np.testing.assert_array_equal(
        likeliest(responses, one), ability.maximum_likelihood(responses, one)
    )
    two = ItemBank(names, alpha, beta, np.zeros_like(alpha), nothing)
    np.testing.assert_array_equal(
        likeliest(responses, two), maximum_likelihood(responses, alpha, beta)
    )
    with pytest.raises(InputError, match=r"0\.5 for item '7'"):
        likeliest(np.where(np.arange(ITEMS) == 7, 0.5, responses), two)
