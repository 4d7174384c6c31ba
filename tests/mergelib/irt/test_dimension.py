"""The choice of the number of abilities on simulations with one and with two."""

import numpy as np
import pytest
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.estimators import EstimatorContext, parent_irt
from mergelib.irt.dimension import _averaged, bank_of_dimensions, choose_dimensions
from mergelib.irt.shift import NO_SHIFT, fit_shift


def names(count):
    return [f"item {i}" for i in range(count)]


def simulate(second, seed=0, models=120, items=150):
    """Half of the items ask a second ability, which agrees with the first or has nothing of it."""
    random = np.random.default_rng(seed)
    one, other = random.standard_normal((2, models, 1))
    half = items // 2
    alpha, beta = np.exp(random.normal(0.4, 0.3, items)), random.normal(0, 1, items)
    gamma = np.hstack([np.repeat(one, half, 1), np.repeat(other if second else one, half, 1)])
    p = expit(gamma * alpha - beta)
    return (random.random(p.shape) < p).astype(float)


def test_one_ability_stays_one():
    found = choose_dimensions(simulate(False), names(150), 20, np.random.default_rng(0))
    assert found.dimensions == 1
    assert set(found.errors) == {1, 2, 3}
    assert found.standard_errors[1] == 0
    assert found.errors[1] < 0.1


def test_two_abilities_are_found_where_they_help():
    found = choose_dimensions(simulate(True), names(150), 60, np.random.default_rng(0))
    assert found.dimensions in (2, 3)
    assert found.errors[2] < found.errors[1]


@pytest.mark.parametrize("dimensions", [1, 2])
def test_averaged_is_what_parent_irt_estimates(dimensions):
    responses = simulate(True)
    rest, held = responses[:100], responses[100:]
    bank = bank_of_dimensions(rest, names(150), dimensions)
    shift = fit_shift(rest, bank) if dimensions == 1 else NO_SHIFT
    seen = np.where(np.arange(150) % 5 == 0, held, np.nan)
    found = np.where(np.isnan(seen), _averaged(seen, bank, rest), seen).mean(axis=1)
    expected = parent_irt(seen, EstimatorContext(bank=bank, shift=shift)).value
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_averaged_the_shift_does_what_a_second_ability_would():
    at_mode, averaged = (
        choose_dimensions(simulate(True), names(150), 60, np.random.default_rng(0), averaged=a)
        for a in (False, True)
    )
    assert averaged.errors[1] < at_mode.errors[1]


def test_same_seed_same_choice_and_gaps_in_the_responses_do():
    responses = simulate(False)
    responses[np.random.default_rng(1).random(responses.shape) < 0.6] = np.nan
    responses[3] = np.nan
    one, other = (
        choose_dimensions(responses, names(150), 20, np.random.default_rng(2)) for _ in range(2)
    )
    assert one == other
    assert np.all(np.isfinite(list(one.errors.values())))


@pytest.mark.filterwarnings("error")
def test_dimensions_that_the_models_are_too_few_for_are_left_out():
    responses = (np.random.default_rng(3).random((4, 10)) < 0.5).astype(float)
    found = choose_dimensions(responses, names(10), 3, np.random.default_rng(0))
    assert set(found.errors) == {1}
    assert found.dimensions == 1


def test_what_is_refused():
    random = np.random.default_rng(0)
    with pytest.raises(InputError, match="at least 4 models"):
        choose_dimensions(np.ones((3, 5)), names(5), 2, random)
    with pytest.raises(InputError, match="more than 5 responses"):
        choose_dimensions(np.ones((6, 5)), names(5), 5, random)
    with pytest.raises(InputError, match=r"candidates \[2, 1\] do not rise"):
        choose_dimensions(np.ones((6, 5)), names(5), 2, random, candidates=(2, 1))
    with pytest.raises(InputError, match=r"0\.5 for item 'item 0'"):
        choose_dimensions(np.full((6, 5), 0.5), names(5), 2, random)
