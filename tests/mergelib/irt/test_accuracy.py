"""The posterior of accuracy against dense grids, Monte Carlo and simulated coverage."""

from unittest.mock import patch

import numpy as np
import pytest
from scipy.special import expit

from mergelib.irt import accuracy
from mergelib.irt.ability import gaussian_weights, posterior
from mergelib.irt.accuracy import accuracy_posterior
from mergelib.irt.bank import GRID, ItemBank
from mergelib.irt.shift import Shift


def make_bank(items, seed=0):
    rng = np.random.default_rng(seed)
    return ItemBank(
        tuple(f"item {i}" for i in range(items)),
        np.exp(rng.normal(0.2, 0.4, items)),
        rng.normal(0, 1.5, items),
        np.zeros(items),
        np.zeros(items),
    )


def draw(bank, gamma, rng):
    p = bank.probability(np.asarray(gamma))
    return (rng.random(p.shape) < p).astype(float)


def ask(responses, n, rng):
    """Each candidate is asked its own n items."""
    order = np.argsort(rng.random(responses.shape), axis=1)
    return np.where(order < n, responses, np.nan)


def test_widening_stretches_doubt_about_ability_and_leaves_chance():
    # Monte Carlo: abilities from the posterior, unseen responses by coin flips.
    rng = np.random.default_rng(10)
    bank, prior = make_bank(40), gaussian_weights(0.3, 0.6)
    responses = ask(draw(bank, rng.standard_normal(8), rng), 15, rng)
    weights = posterior(responses, bank, prior)
    wider = accuracy_posterior(responses, bank, prior, widening=1.5)
    for c, row in enumerate(responses):
        seen = ~np.isnan(row)
        p = bank.probability(rng.choice(GRID, 20_000, p=weights[c]))[:, ~seen]
        expected, flips = p.sum(1), (rng.random(p.shape) < p).sum(1)
        total = row[seen].sum() + expected.mean() + 1.5 * (expected - expected.mean())
        limits = np.quantile((total + flips - expected) / 40, [0.025, 0.975])
        possible = row[seen].sum() / 40, (row[seen].sum() + (~seen).sum()) / 40
        np.testing.assert_allclose(
            [wider.low[c], wider.high[c]], np.clip(limits, *possible), atol=0.02
        )
    none = accuracy_posterior(responses, bank, prior, widening=0.0)
    assert np.all(none.high - none.low < wider.high - wider.low)
    assert np.all(none.high - none.low > 0)


SHIFT = Shift(slope=-0.3, sd=0.4, ability_sd=1.2)


def test_with_a_shift_it_is_the_posterior_over_both_traits():
    # A dense product grid, by loops, against the quadrature.
    rng = np.random.default_rng(11)
    bank = make_bank(30)
    responses = ask(draw(bank, rng.standard_normal(5), rng), 12, rng)
    found = accuracy_posterior(responses, bank, gaussian_weights(0.0, 1.2), shift=SHIFT)
    gammas, errors = np.linspace(-6, 6, 241), np.linspace(-2, 2, 161)
    for c, row in enumerate(responses):
        seen = ~np.isnan(row)
        mass, total = 0.0, 0.0
        for gamma in gammas:
            shift = SHIFT.slope * gamma + errors[:, None]
            p = expit(bank.discrimination * gamma - bank.difficulty + shift)
            likelihood = np.prod(np.where(row[seen] == 1, p[:, seen], 1 - p[:, seen]), axis=1)
            joint = likelihood * np.exp(-0.5 * (errors / SHIFT.sd) ** 2 - 0.5 * (gamma / 1.2) ** 2)
            mass += joint.sum()
            total += joint @ (row[seen].sum() + p[:, ~seen].sum(1))
        assert found.value[c] == pytest.approx(total / mass / 30, abs=1e-3)


def test_pooling_the_nodes_moves_no_quantile():
    rng = np.random.default_rng(12)
    bank = make_bank(300)
    responses = ask(draw(bank, rng.standard_normal(20), rng), 25, rng)
    prior = gaussian_weights(0.0, 1.2)
    pooled = accuracy_posterior(responses, bank, prior, shift=SHIFT)
    with patch.object(accuracy, "POOLS", 10_000):
        exact = accuracy_posterior(responses, bank, prior, shift=SHIFT)
    for one, other in zip(pooled, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.parametrize("n", [10, 40, 100])
def test_intervals_cover_models_with_a_second_trait(n):
    rng = np.random.default_rng(13)
    bank = make_bank(300)
    gamma = rng.normal(0, 1.2, (1500, 1))
    p = expit(
        bank.discrimination * gamma
        - bank.difficulty
        + SHIFT.slope * gamma
        + rng.normal(0, SHIFT.sd, (1500, 1))
    )
    everything = (rng.random(p.shape) < p).astype(float)
    truth, responses = everything.mean(1), ask(everything, n, rng)
    prior = gaussian_weights(0.0, SHIFT.ability_sd)
    found = accuracy_posterior(responses, bank, prior, shift=SHIFT)
    covered = np.mean((found.low <= truth) & (truth <= found.high))
    assert covered == pytest.approx(0.95, abs=0.02)
