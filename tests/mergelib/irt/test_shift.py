"""The second trait: its fit against simulated truth, and its quadrature."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.irt.ability import log_likelihood_grid
from mergelib.irt.bank import ItemBank
from mergelib.irt.shift import NO_SHIFT, Shift, fit_shift


def make_bank(items, seed=0):
    rng = np.random.default_rng(seed)
    return ItemBank(
        tuple(f"item {i}" for i in range(items)),
        np.exp(rng.normal(0.2, 0.4, items)),
        rng.normal(0, 1.5, items),
        np.zeros(items),
        np.zeros(items),
    )


def simulate(bank, shift, models, rng, asked=1.0):
    gamma = rng.normal(0, 1, (models, 1))
    # of exactly that spread, so that what is looked for is what is there
    gamma *= shift.ability_sd / max(gamma.std(), 0.1)
    delta = shift.slope * gamma + rng.normal(0, shift.sd, (models, 1))
    p = expit(bank.discrimination * gamma - bank.difficulty + delta)
    responses = (rng.random(p.shape) < p).astype(float)
    responses[rng.random(p.shape) >= asked] = np.nan
    return responses


@pytest.mark.parametrize(("asked", "tolerance"), [(1.0, 0.06), (0.5, 0.12)])
def test_what_was_simulated_is_found(asked, tolerance):
    rng = np.random.default_rng(1)
    bank, truth = make_bank(400), Shift(-0.4, 0.3, 1.3)
    found = fit_shift(simulate(bank, truth, 400, rng, asked), bank, strength=0.1)
    assert found.slope == pytest.approx(truth.slope, abs=tolerance)
    assert found.sd == pytest.approx(truth.sd, abs=tolerance)
    assert found.ability_sd == pytest.approx(truth.ability_sd, abs=0.12)


def test_without_a_second_trait_next_to_none_is_found():
    rng = np.random.default_rng(2)
    bank = make_bank(400)
    found = fit_shift(simulate(bank, NO_SHIFT, 200, rng), bank)
    assert abs(found.slope) < 0.05
    assert found.sd < 0.11


def test_few_responses_change_little():
    rng = np.random.default_rng(3)
    bank, start = make_bank(50), Shift(0.0, 0.1, 1.0)
    for responses in (np.empty((0, 50)), np.full((3, 50), np.nan)):
        found = fit_shift(responses, bank)
        assert (found.slope, found.ability_sd) == (start.slope, start.ability_sd)
        assert found.sd == pytest.approx(start.sd)
    one = fit_shift(simulate(bank, NO_SHIFT, 1, rng), bank)
    assert abs(one.slope) < 0.1
    assert one.sd == pytest.approx(0.1, abs=0.05)


def test_order_does_not_matter():
    rng = np.random.default_rng(4)
    bank = make_bank(60)
    responses = simulate(bank, Shift(0.2, 0.2, 1.0), 30, rng, 0.6)
    one, other = fit_shift(responses, bank), fit_shift(responses[rng.permutation(30)], bank)
    assert one.slope == pytest.approx(other.slope)
    assert one.sd == pytest.approx(other.sd)


def test_likelihood_integrates_the_shift_out():
    rng = np.random.default_rng(5)
    bank, shift = make_bank(12), Shift(-0.3, 0.5, 1.0)
    responses = simulate(bank, shift, 3, rng)
    grid = np.array([-1.0, 0.4])
    found = log_likelihood_grid(responses, bank, grid, shift)

    def joint(e, gamma, row):
        p = expit(bank.discrimination * gamma - bank.difficulty + shift.slope * gamma + e)
        density = np.exp(-0.5 * (e / shift.sd) ** 2) / (shift.sd * np.sqrt(2 * np.pi))
        return density * np.prod(np.where(row == 1, p, 1 - p))

    for row, values in zip(responses, found, strict=True):
        for gamma, value in zip(grid, values, strict=True):
            area, _ = quad(joint, -3, 3, args=(gamma, row))
            assert value == pytest.approx(np.log(area), abs=0.02)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="does not fit 3 items"):
        fit_shift(np.zeros((2, 4)), make_bank(3))
    for bad in ({"sd": -1.0}, {"ability_sd": 0.0}, {"slope": np.nan}):
        with pytest.raises(InputError, match="ability_sd above 0"):
            Shift(**bad)
