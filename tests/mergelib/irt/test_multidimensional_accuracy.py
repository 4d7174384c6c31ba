"""Posteriors of accuracy with two abilities against brute-force integration over a grid."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logsumexp
from scipy.stats import norm

from mergelib.irt.ability import ParentPrior
from mergelib.irt.items import ItemBank
from mergelib.irt.multidimensional_accuracy import (
    NODES,
    NormalPart,
    _standard_normal,
    accuracy_posterior,
    parent_prior_parts,
    wide_prior,
)

AXIS = np.linspace(-9, 9, 361)
PLANE = np.stack(np.meshgrid(AXIS, AXIS, indexing="ij"), axis=-1).reshape(-1, 2)


def make_bank(items=50, d=2, seed=0):
    rng = np.random.default_rng(seed)
    alpha = np.column_stack([np.exp(rng.normal(0, 0.3, items)), rng.normal(0, 0.8, (items, d - 1))])
    names = tuple(map(str, range(items)))
    return ItemBank(names, alpha, rng.normal(0, 1, items), np.zeros((items, d)), np.zeros(items))


def ask(bank, n, models=6, seed=1):
    rng = np.random.default_rng(seed)
    p = bank.probability(rng.standard_normal((models, bank.dimensions)))
    responses = (rng.random(p.shape) < p).astype(float)
    order = np.argsort(rng.random(p.shape), axis=1)
    return np.where(order < n, responses, np.nan)


def brute_force(row, bank, prior, share=None):
    """Posterior mean of A, or a quantile: the mixture over 130 321 nodes, written out."""
    log_prior = logsumexp(
        [
            np.log(w) - ((PLANE - mean) ** 2).sum(1) / (2 * sd**2) - 2 * np.log(sd)
            for w, mean, sd in prior
        ],
        axis=0,
    )
    seen = ~np.isnan(row)
    p = expit(PLANE @ bank.discrimination.T - bank.difficulty)
    log_l = np.log(np.where(row[seen] == 1, p[:, seen], 1 - p[:, seen])).sum(1)
    w = np.exp(log_prior + log_l - np.max(log_prior + log_l))
    w /= w.sum()
    centre = (row[seen].sum() + p[:, ~seen].sum(1)) / len(row)
    if share is None:
        return w @ centre
    spread = np.sqrt((p * (1 - p))[:, ~seen].sum(1)) / len(row)
    kept = w > 1e-12
    return brentq(lambda x: w[kept] @ norm.cdf(x, centre[kept], spread[kept]) - share, -0.5, 1.5)


PRIORS = {
    "wide": wide_prior(2, 1.0),
    "flat": wide_prior(2, 3.46),
    "parents": [
        NormalPart(0.4, np.array([0.2, -0.3]), 0.3),
        NormalPart(0.4, np.array([1.5, 0.5]), 0.3),
        NormalPart(0.2, np.array([0.2, -0.3]), 2.0),
    ],
}


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("n", [8, 30])
def test_means_and_quantiles_are_brute_forces(name, n):
    bank = make_bank()
    responses = ask(bank, n)
    responses[0, ~np.isnan(responses[0])] = 1.0  # no finite maximum of the likelihood
    found = accuracy_posterior(responses, bank, PRIORS[name])
    for row, value, low, high in zip(responses, *found, strict=True):
        assert value == pytest.approx(brute_force(row, bank, PRIORS[name]), abs=0.004)
        seen = np.nansum(row) / 50
        expected = [brute_force(row, bank, PRIORS[name], share) for share in (0.025, 0.975)]
        assert low == pytest.approx(max(expected[0], seen), abs=0.012)
        most = seen + np.isnan(row).sum() / 50
        assert high == pytest.approx(min(expected[1], most), abs=0.012)


def test_widening_a_given_value_and_no_response():
    bank = make_bank()
    responses = ask(bank, 12)
    responses[2] = np.nan
    one, two = (accuracy_posterior(responses, bank, PRIORS["wide"], widening=f) for f in (1.0, 1.5))
    answered = np.delete(np.arange(6), 2)
    np.testing.assert_array_equal(one.value, two.value)
    assert np.all((two.high - two.low)[answered] > (one.high - one.low)[answered])
    assert np.isnan([each[2] for each in one]).all()
    given = accuracy_posterior(responses, bank, PRIORS["wide"], value=np.full(6, 0.5))
    assert np.all(given.value[answered] == 0.5)
    assert np.all((given.low <= 0.5)[answered] & (given.high >= 0.5)[answered])


def test_all_items_answered_leave_nothing_open():
    bank = make_bank()
    found = accuracy_posterior(ask(bank, 50), bank, PRIORS["parents"])
    np.testing.assert_allclose(found.low, found.value, atol=1e-9)
    np.testing.assert_allclose(found.high, ask(bank, 50).mean(axis=1), atol=1e-9)


def test_the_intervals_of_simulated_models_hold_the_nominal_share():
    bank = make_bank(items=200, d=3, seed=3)
    complete = ask(bank, 200, models=600, seed=4)
    order = np.argsort(np.random.default_rng(5).random(complete.shape), axis=1)
    asked = np.where(order < 20, complete, np.nan)
    found = accuracy_posterior(asked, bank, wide_prior(3, 1.0))
    truth = complete.mean(axis=1)
    covered = np.mean((found.low <= truth) & (truth <= found.high))
    assert 0.93 < covered < 0.97  # standard error .009


def test_parents_stand_where_their_abilities_and_accuracies_say():
    alpha = np.column_stack([np.full(30, 0.2), np.full(30, 1.5)])
    bank = ItemBank(
        tuple(map(str, range(30))), alpha, np.zeros(30), np.zeros((30, 2)), np.zeros(30)
    )
    abilities = np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.2]])  # the second is right most often
    mean, best, wide = parent_prior_parts(abilities, ParentPrior(0.1, 0.2, 3.0, 0.4), bank)
    np.testing.assert_allclose(mean.mean, abilities.mean(axis=0))
    np.testing.assert_array_equal(best.mean, abilities[1])
    np.testing.assert_allclose(wide.mean, abilities.mean(axis=0))
    assert (mean.weight, best.weight, wide.weight) == (0.3, 0.3, 0.4)
    assert (mean.sd, best.sd, wide.sd) == (0.1, 0.2, 3.0)


@pytest.mark.parametrize("d", [2, 5])
def test_the_nodes_stand_for_independent_normals(d):
    z = _standard_normal(d)
    assert z.shape == (NODES, d)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.T @ z / NODES, np.eye(d), atol=1e-12)
    assert len(np.unique(z, axis=0)) == NODES
