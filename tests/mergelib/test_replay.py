"""Replays against the coverage of further simulated models."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.estimators import EstimatorContext, endpoint_abilities, p_irt, parent_irt
from mergelib.irt.ability import ParentPrior
from mergelib.irt.bank import calibrate
from mergelib.irt.shift import NO_SHIFT, Shift, fit_shift
from mergelib.replay import DEFAULT_WIDENING, ENOUGH, cross_fit, replay

ITEMS = 200
NAMES = [str(n) for n in range(ITEMS)]
ALONE = EstimatorContext()  # one ability, no shift


def simulate(models, rng):
    """Two-parameter items."""
    alpha, beta = np.exp(rng.normal(0.1, 0.4, ITEMS)), rng.normal(0, 1.2, ITEMS)
    p = expit(np.outer(rng.standard_normal(models), alpha) - beta)
    return (rng.random(p.shape) < p).astype(float)


def asked_of(truth, n, rng):
    responses = np.full_like(truth, np.nan)
    chosen = rng.choice(ITEMS, n, replace=False)
    responses[:, chosen] = truth[:, chosen]
    return responses


def planned_missing(responses, share, rng):
    kept = np.argsort(rng.random(responses.shape), axis=1) < share * ITEMS
    return np.where(kept, responses, np.nan)


def coverage(everything, n, rng, context, widening):
    covered, truth = [], everything.mean(1)
    for _ in range(6):
        found = parent_irt(asked_of(everything, n, rng), replace(context, widening=widening))
        covered.append(np.mean((found.low <= truth) & (truth <= found.high)))
    return np.mean(covered)


def test_intervals_that_claim_too_much_are_widened_until_they_cover():
    # A prior that puts all siblings next to their parents, where they are not.
    rng = np.random.default_rng(0)
    everything = simulate(500, rng)
    known, others = everything[:150], everything[150:]
    prior = ParentPrior(mean_sd=0.5, best_sd=0.5, wide_sd=0.5)
    context = replace(ALONE, parent_prior=prior)
    folds = cross_fit(known, rng, endpoints=[0, 1], context=context)
    found = replay(known, folds, 15, "random", rng, endpoints=[0, 1])
    assert found.models == 148
    assert found.widening > 1.15
    bank = calibrate(known, NAMES).bank
    context = replace(context, bank=bank, endpoint_abilities=endpoint_abilities(known[:2], bank))
    raw, widened = (coverage(others, 15, rng, context, f) for f in (1.0, found.widening))
    assert raw < 0.92
    assert found.coverage == pytest.approx(raw, abs=0.06)
    assert 0.92 < widened < 0.985


def test_models_that_keep_to_them_are_left_alone():
    rng = np.random.default_rng(1)
    known = simulate(200, rng)
    found = replay(known, cross_fit(known, rng, context=ALONE), 20, "random", rng)
    assert found.widening == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("models", "share"), [(24, 0.3), (12, 0.15)])
def test_few_models_with_few_answers(models, share):
    rng = np.random.default_rng(2)
    covered, factors = [], []
    for _ in range(2):
        everything = simulate(250, rng)
        known = planned_missing(everything[:models], share, rng)
        bank = calibrate(known, NAMES).bank
        shift = fit_shift(known, bank)
        folds = cross_fit(known, rng)
        found = replay(known, folds, 20, "random", rng)
        assert found.models == models
        factors.append(found.widening)
        context = EstimatorContext(bank=bank, shift=shift)
        covered.append(coverage(everything[models:], 20, rng, context, found.widening))
    assert 0.92 < np.mean(covered) < 0.995
    assert min(factors) >= 1
    assert max(factors) < 2.5


def test_what_cannot_be_replayed_gets_the_default():
    rng = np.random.default_rng(3)
    responses = simulate(4, rng)
    little = np.full((4, ITEMS), np.nan)
    little[:, :9] = responses[:, :9]  # half of 9 are less than 5
    for known in (little, responses[:2], little[:0]):
        found = replay(known, cross_fit(known, rng), 10, "random", rng)
        assert (found.widening, found.models) == (DEFAULT_WIDENING, 0)
        assert math.isnan(found.coverage)


def test_endpoints_are_never_held_out_and_the_context_is_kept():
    rng = np.random.default_rng(4)
    known = simulate(30, rng)
    context = replace(ALONE, shift=Shift(0.0, 0.1, 1.0), level=0.9)
    folds = cross_fit(known, rng, endpoints=[3, 7], context=context)
    held = np.concatenate([fold.held for fold in folds])
    assert sorted(held) == [n for n in range(30) if n not in (3, 7)]
    for fold in folds:
        assert not set(fold.held) & set(fold.rest)
        assert {3, 7} <= set(fold.rest)
        assert fold.context.endpoint_abilities.shape == (2,)
        assert fold.context.level == 0.9
        assert fold.context.shift != NO_SHIFT
    for strategy in ("stratified", "informative"):
        found = replay(known, folds, 15, strategy, rng, endpoints=[3, 7])
        assert found.models == 28
    assert cross_fit(known, rng, context=ALONE)[0].context.shift == NO_SHIFT


def test_the_same_seed_gives_the_same_widening_and_others_estimators_will_do():
    known = planned_missing(simulate(20, np.random.default_rng(5)), 0.4, np.random.default_rng(6))
    found = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        found.append(replay(known, cross_fit(known, rng), 10, "systematic", rng, estimator=p_irt))
    assert found[0] == found[1]
    assert found[0].models == 20 < ENOUGH


def test_bad_requests_are_refused():
    rng = np.random.default_rng(8)
    with pytest.raises(InputError, match="1 folds"):
        cross_fit(np.zeros((3, 4)), rng, folds=1)
    with pytest.raises(InputError, match="0 items"):
        replay(np.zeros((3, 4)), [], 0, "random", rng)
    with pytest.raises(InputError, match="binarise"):
        cross_fit(np.full((3, 4), 0.5), rng)
