"""The Rasch model, held to the parameters that responses were drawn from."""

import numpy as np
import pytest
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.irt.bank import calibrate
from mergelib.irt.rasch import calibrate_rasch


def _drawn(models: int, items: int, share: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    theta, b = rng.normal(0.5, 1.2, models), rng.normal(-0.5, 2.0, items)
    right = (rng.random((models, items)) < expit(theta[:, None] - b)).astype(float)
    return np.where(rng.random(right.shape) < share, right, np.nan), theta, b


def test_difficulties_are_found_again_from_sparse_responses() -> None:
    responses, theta, b = _drawn(400, 200, 0.15)
    bank = calibrate_rasch(responses, [str(n) for n in range(200)])
    scale = bank.discrimination[0]
    assert (bank.discrimination == scale).all()
    assert scale == pytest.approx(theta.std(), rel=0.15)
    # On the bank's scale the models' abilities have mean 0.
    error = bank.difficulty - (b - theta.mean())
    assert np.sqrt(np.mean(error**2)) < 0.5
    assert np.sqrt(np.mean((error / bank.difficulty_se) ** 2)) == pytest.approx(1.0, abs=0.3)


def test_few_responses_an_item_are_better_shared_than_told_apart() -> None:
    """Probabilities of a model in the middle, by this and by the two-parameter model."""
    errors: dict[str, list[float]] = {"one": [], "two": []}
    for seed in range(3):
        responses, theta, b = _drawn(60, 300, 0.08, seed)
        names = [str(n) for n in range(300)]
        truth = expit(theta.mean() - b)
        for name, bank in (
            ("one", calibrate_rasch(responses, names)),
            ("two", calibrate(responses, names).bank),
        ):
            errors[name].append(float(np.mean((bank.probability(np.zeros(1))[0] - truth) ** 2)))
    assert np.mean(errors["one"]) < np.mean(errors["two"])


def test_what_nobody_answered_or_all_answered_alike_is_finite() -> None:
    responses = np.array([[1.0, 0.0, np.nan, 1.0], [1.0, 0.0, np.nan, 0.0]])
    bank = calibrate_rasch(responses, list("abcd"))
    assert np.isfinite(bank.difficulty).all()
    assert bank.difficulty[0] < bank.difficulty[2] < bank.difficulty[1]
    assert (bank.discrimination > 0).all()


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(InputError, match="calibration needs at least 2"):
        calibrate_rasch(np.array([[1.0, 0.0]]), ["a", "b"])
