"""The item response models' estimators with several abilities, each against a slow second way."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.estimators import (
    ESTIMATORS,
    EstimatorContext,
    GpIrtConstants,
    endpoint_abilities,
    gp_irt_constants,
    mixture_weights,
)
from mergelib.irt.ability import ParentPrior
from mergelib.irt.items import ItemBank
from mergelib.irt.multidimensional import calibrate_dimensions
from mergelib.irt.shift import Shift
from mergelib.replay import cross_fit, replay

N = 40
NAMES = tuple(map(str, range(N)))
IRT = ("p_irt", "gp_irt", "mp_irt", "gmp_irt", "parent_irt")


def make_bank(d, seed=0):
    rng = np.random.default_rng(seed)
    alpha = rng.normal(0.6, 0.7, (N, d))
    return ItemBank(NAMES, alpha, rng.normal(0, 1, N), np.zeros((N, d)), np.zeros(N))


def draw(bank, models, rng):
    p = bank.probability(rng.standard_normal((models, bank.dimensions)))
    return (rng.random(p.shape) < p).astype(float)


@pytest.fixture(params=[2, 3])
def case(request):
    rng = np.random.default_rng(1)
    bank = make_bank(request.param)
    order = np.argsort(rng.random((8, N)), axis=1)
    context = EstimatorContext(
        bank=bank,
        endpoint_abilities=rng.normal(0, 0.8, (2, bank.dimensions)),
        gp_irt_constants=GpIrtConstants(0.04, 0.2),
    )
    return context, np.where(order < 22, draw(bank, 8, rng), np.nan)


def negative(gamma, row, bank):
    seen = ~np.isnan(row)
    z = bank.discrimination[seen] @ gamma - bank.difficulty[seen]
    return float(np.logaddexp(0, z).sum() - row[seen] @ z)


def published(row, bank, gamma):
    """f * mean_S Y + (1 - f) * mean_U p_i(gamma), item by item."""
    seen, total = 0, 0.0
    for y, a, b in zip(row, bank.discrimination, bank.difficulty, strict=True):
        seen += not np.isnan(y)
        total += expit(float(a @ gamma) - b) if np.isnan(y) else y
    assert seen == 22
    return total / len(row)


def by_scipy(row, bank):
    bounds = [(-6, 6)] * bank.dimensions
    options = {"ftol": 1e-14, "gtol": 1e-8}
    start = np.zeros(bank.dimensions)
    found = minimize(
        negative, start, (row, bank), method="L-BFGS-B", bounds=bounds, options=options
    )
    return found.x


def test_p_irt_and_gp_irt_are_the_published_formulas_at_scipys_maximum(case):
    context, responses = case
    plain = np.array(
        [published(row, context.bank, by_scipy(row, context.bank)) for row in responses]
    )
    np.testing.assert_allclose(ESTIMATORS["p_irt"](responses, context).value, plain, atol=2e-4)
    c = 0.04**2 / (0.04**2 + 0.2 / 22)
    expected = c * np.nanmean(responses, axis=1) + (1 - c) * plain
    np.testing.assert_allclose(ESTIMATORS["gp_irt"](responses, context).value, expected, atol=2e-4)


@pytest.mark.filterwarnings("ignore:mp_irt equals p_irt")
def test_mp_irt_and_gmp_irt_mix_the_endpoints_as_scipys_bfgs_does(case):
    context, responses = case
    bank, gammas = context.bank, context.endpoint_abilities
    mixed = []
    for row in responses:
        best = minimize(
            lambda mix, row=row: negative(mix @ gammas, row, bank),
            np.full(2, 0.5),
            method="BFGS",
            options={"gtol": 1e-8},
        )
        mixed.append(best.x)
    np.testing.assert_allclose(mixture_weights(responses, context), mixed, atol=2e-3)
    expected = np.array(
        [published(row, bank, mix @ gammas) for row, mix in zip(responses, mixed, strict=True)]
    )
    np.testing.assert_allclose(ESTIMATORS["mp_irt"](responses, context).value, expected, atol=5e-4)
    half = 0.5 * expected + 0.5 * np.nanmean(responses, axis=1)
    np.testing.assert_allclose(ESTIMATORS["gmp_irt"](responses, context).value, half, atol=5e-4)


@pytest.mark.filterwarnings("error")
def test_mp_irt_warns_only_where_endpoints_span_everything(case):
    context, responses = case
    if context.bank.dimensions == 2:
        with pytest.warns(UserWarning, match="span all 2 dimensions"):
            found = ESTIMATORS["mp_irt"](responses, context)
        np.testing.assert_allclose(found.value, ESTIMATORS["p_irt"](responses, context).value)
    else:
        found = ESTIMATORS["mp_irt"](responses, context)
        assert np.abs(found.value - ESTIMATORS["p_irt"](responses, context).value).max() > 0.005


def test_parent_irt_is_importance_sampling_from_the_prior(case):
    context, responses = case
    bank, gammas = context.bank, context.endpoint_abilities
    accuracy = [expit(bank.discrimination @ g - bank.difficulty).mean() for g in gammas]
    centre, best = gammas.mean(axis=0), gammas[int(np.argmax(accuracy))]
    prior = ParentPrior(0.4, 0.5, 1.5, 0.3)
    rng, count = np.random.default_rng(2), 400_000
    part = rng.choice(3, count, p=[0.35, 0.35, 0.3])
    mean = np.stack([centre, best, centre])[part]
    gamma = mean + np.array([0.4, 0.5, 1.5])[part, None] * rng.standard_normal(mean.shape)
    p = expit(gamma @ bank.discrimination.T - bank.difficulty)
    found = ESTIMATORS["parent_irt"](responses, replace(context, parent_prior=prior))
    for row, value, low, high in zip(responses, *found, strict=True):
        seen = ~np.isnan(row)
        w = np.where(row[seen] == 1, p[:, seen], 1 - p[:, seen]).prod(axis=1)
        unseen = p[:, ~seen]
        total = row[seen].sum() + unseen.sum(axis=1)
        assert value == pytest.approx(float(w @ total / w.sum()) / N, abs=0.003)
        drawn = rng.choice(count, 20_000, p=w / w.sum())
        sample = row[seen].sum() + (rng.random((20_000, unseen.shape[1])) < unseen[drawn]).sum(1)
        # A is a share of 40 items: its quantiles are steps of .025
        assert [low, high] == pytest.approx(np.quantile(sample / N, [0.025, 0.975]), abs=0.026)


def test_without_endpoints_the_prior_is_the_calibration_models(case):
    context, responses = case
    bank = context.bank
    gamma = np.random.default_rng(3).standard_normal((200_000, bank.dimensions))
    p = expit(gamma @ bank.discrimination.T - bank.difficulty)
    found = ESTIMATORS["parent_irt"](responses, replace(context, endpoint_abilities=None))
    for row, value in zip(responses, found.value, strict=True):
        seen = ~np.isnan(row)
        w = np.where(row[seen] == 1, p[:, seen], 1 - p[:, seen]).prod(axis=1)
        expected = (row[seen].sum() + (w @ p[:, ~seen].sum(axis=1)) / w.sum()) / N
        assert value == pytest.approx(float(expected), abs=0.003)


@pytest.mark.filterwarnings("ignore:mp_irt equals p_irt")
@pytest.mark.parametrize("name", IRT)
def test_degenerate_responses_give_finite_results_or_the_documented_nan(case, name):
    context, responses = case
    responses = responses.copy()
    responses[0, ~np.isnan(responses[0])] = 1.0
    responses[1, ~np.isnan(responses[1])] = 0.0
    responses[2] = np.nan
    responses[3, :-1] = np.nan
    responses[3, -1] = 1.0
    found = np.array(ESTIMATORS[name](responses, context))
    assert np.isnan(found[:, 2]).all()
    value, low, high = np.delete(found, 2, axis=1)
    assert np.all((low >= 0) & (low <= value) & (value <= high) & (high <= 1))


def test_what_does_not_fit_is_refused(case):
    context, responses = case
    with pytest.raises(InputError, match="a shift beside"):
        ESTIMATORS["parent_irt"](responses, replace(context, shift=Shift(0.1, 0.2)))
    flat = replace(context, endpoint_abilities=np.array([0.1, 0.2]))
    for name in ("mp_irt", "parent_irt"):
        with pytest.raises(InputError, match="needs each endpoint's ability"):
            ESTIMATORS[name](responses, flat)


def test_endpoints_constants_and_replays_follow_the_banks_dimensions():
    rng = np.random.default_rng(4)
    true = make_bank(2, seed=5)
    known = draw(true, 120, rng)
    bank = calibrate_dimensions(known, NAMES, 2).bank
    ends = known[:2].copy()
    ends[1] = np.nan
    abilities = endpoint_abilities(ends, bank)
    assert abilities.shape == (2, 2)
    assert np.isnan(abilities[1]).all()
    one, two = gp_irt_constants(known), gp_irt_constants(known, 2)
    assert one.item_variance == two.item_variance
    assert one.validation_error != two.validation_error
    context = EstimatorContext(bank=bank)
    folds = cross_fit(known, rng, endpoints=[0, 1], context=context)
    assert [fold.context.bank.dimensions for fold in folds] == [2] * 5
    found = replay(known, folds, 15, "random", rng, endpoints=[0, 1])
    assert found.models == 118
    assert 0.7 < found.widening < 1.5
    # three models: none can be held out of a calibration with two abilities
    assert cross_fit(known[:3], rng, context=context) == []
