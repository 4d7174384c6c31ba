"""The item bank: its calibration against simulations and scipy's optimiser, and its edges."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from mergelib.errors import InputError
from mergelib.irt import bank as bank_module
from mergelib.irt.ability import gaussian_weights, posterior
from mergelib.irt.bank import GRID, ItemBank, calibrate


def simulate(models, items, seed, asked=1.0):
    rng = np.random.default_rng(seed)
    gamma = rng.standard_normal(models)
    gamma = (gamma - gamma.mean()) / gamma.std()
    alpha = np.exp(rng.normal(0.2, 0.4, items))
    beta = rng.normal(0.0, 1.5, items)
    responses = (rng.random((models, items)) < expit(np.outer(gamma, alpha) - beta)).astype(float)
    responses[rng.random(responses.shape) >= asked] = np.nan
    return gamma, alpha, beta, responses


def names(count):
    return [f"item {i}" for i in range(count)]


@pytest.mark.parametrize("asked", [1.0, 0.5])
def test_parameters_are_recovered_within_their_standard_errors(asked):
    gamma, alpha, beta, responses = simulate(800, 80, 1, asked)
    found = calibrate(responses, names(80))
    z_alpha = (found.bank.discrimination - alpha) / found.bank.discrimination_se
    z_beta = (found.bank.difficulty - beta) / found.bank.difficulty_se
    assert 0.8 < np.sqrt(np.mean(z_alpha**2)) < 1.3
    assert 0.8 < np.sqrt(np.mean(z_beta**2)) < 1.3
    assert np.corrcoef(gamma, found.abilities)[0, 1] > 0.94


@pytest.mark.parametrize(("models", "items", "asked"), [(400, 150, 1.0), (100, 300, 0.3)])
def test_intervals_hold_the_truth_as_often_as_they_say(models, items, asked):
    inside = {"alpha": [], "beta": [], "gamma": []}
    for seed in range(4):
        gamma, alpha, beta, responses = simulate(models, items, seed, asked)
        bank = calibrate(responses, names(items)).bank
        weights = posterior(responses, bank, gaussian_weights(0.0, 1.0))
        mean = weights @ GRID
        sd = np.sqrt(weights @ GRID**2 - mean**2)
        inside["alpha"] += [np.abs(bank.discrimination - alpha) < 1.96 * bank.discrimination_se]
        inside["beta"] += [np.abs(bank.difficulty - beta) < 1.96 * bank.difficulty_se]
        inside["gamma"] += [np.abs(mean - gamma) < 1.96 * sd]
    for hits in inside.values():
        assert np.mean(hits) == pytest.approx(0.95, abs=0.025)


def test_scale_is_mean_0_variance_1_over_the_calibration_models():
    found = calibrate(simulate(60, 40, 2)[3], names(40))
    assert found.weights.sum() == pytest.approx(1)
    assert found.weights @ GRID == pytest.approx(0, abs=1e-6)
    assert found.weights @ GRID**2 == pytest.approx(1, abs=1e-6)
    assert found.abilities.mean() == pytest.approx(0, abs=1e-6)
    assert np.all(found.bank.discrimination > 0)


def brute_log_likelihood(alpha, beta, responses):
    """The marginal log-likelihood, cell by cell."""
    log_prior = -(GRID**2) / 2
    log_prior = log_prior - logsumexp(log_prior)
    total = 0.0
    for row in responses:
        joint = log_prior.copy()
        for a, b, y in zip(alpha, beta, row, strict=True):
            if not np.isnan(y):
                joint += np.log(expit((2 * y - 1) * (a * GRID - b)))
        total += logsumexp(joint)
    return total


def test_log_likelihood_is_that_of_the_bank():
    responses = simulate(25, 12, 3, asked=0.7)[3]
    found = calibrate(responses, names(12))
    expected = brute_log_likelihood(found.bank.discrimination, found.bank.difficulty, responses)
    assert found.log_likelihood == pytest.approx(expected)


def test_solution_is_the_maximum_that_scipy_finds():
    responses = simulate(150, 6, 4)[3]
    found = calibrate(responses, names(6), tolerance=1e-12, max_iterations=2000).bank

    def objective(x):
        xi, beta, xi_mean, beta_mean = x[:6], x[6:12], x[12], x[13]
        penalty = (
            np.sum((xi - xi_mean) ** 2) / bank_module.LOG_DISCRIMINATION_SD**2
            + np.sum((beta - beta_mean) ** 2) / bank_module.DIFFICULTY_SD**2
            + xi_mean**2 / bank_module.LOG_DISCRIMINATION_MEAN_SD**2
            + beta_mean**2 / bank_module.DIFFICULTY_MEAN_SD**2
        )
        z = np.outer(GRID, np.exp(xi)) - beta
        log_joint = responses @ z.T - np.logaddexp(0, z).sum(1) - GRID**2 / 2
        return -(logsumexp(log_joint, axis=1).sum() - penalty / 2)

    best = minimize(objective, np.zeros(14), method="BFGS").x
    alpha, beta = np.exp(best[:6]), best[6:12]
    # the two differ in the scale's convention: gamma = mean + sd gamma'
    sd = float(found.discrimination @ alpha / (alpha @ alpha))
    mean = float((beta - found.difficulty) @ alpha / (alpha @ alpha))
    np.testing.assert_allclose(found.discrimination, alpha * sd, rtol=0.02)
    np.testing.assert_allclose(found.difficulty, beta - alpha * mean, atol=0.02)
    assert sd == pytest.approx(1, abs=0.1)


def test_standard_errors_are_the_spread_over_repeated_calibrations():
    rng = np.random.default_rng(5)
    alpha, beta = np.exp(rng.normal(0.2, 0.3, 40)), rng.normal(0, 1, 40)
    fits = []
    for _ in range(20):
        gamma = rng.standard_normal(250)
        gamma = (gamma - gamma.mean()) / gamma.std()
        p = expit(np.outer(gamma, alpha) - beta)
        fits.append(calibrate((rng.random(p.shape) < p).astype(float), names(40)).bank)
    for name in ("discrimination", "difficulty"):
        spread = np.std([getattr(fit, name) for fit in fits], axis=0, ddof=1)
        claimed = np.mean([getattr(fit, f"{name}_se") for fit in fits], axis=0)
        assert np.median(claimed / spread) == pytest.approx(1, abs=0.2)


def test_degenerate_items_are_finite_and_shrunk():
    responses = simulate(50, 30, 6)[3]
    responses[:, 0], responses[:, 1], responses[:, 2] = 1.0, 0.0, np.nan
    responses[3:, 3] = np.nan
    responses[:, 4] = 1 - responses[:, 5]  # falls with ability: the model cannot say so
    bank = calibrate(responses, names(30)).bank
    for values in (bank.discrimination, bank.difficulty, bank.difficulty_se):
        assert np.all(np.isfinite(values))
    assert np.all(bank.discrimination > 0)
    assert -8 < bank.difficulty[0] < bank.difficulty[5:].min()
    assert bank.difficulty[5:].max() < bank.difficulty[1] < 8
    # nothing known: the prior's centre, and errors as wide as the prior
    assert bank.difficulty[2] == pytest.approx(bank.difficulty.mean(), abs=0.2)
    assert bank.difficulty_se[2] == pytest.approx(bank_module.DIFFICULTY_SD, rel=0.1)
    assert bank.difficulty_se[3] > 2 * np.median(bank.difficulty_se)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "responses",
    [
        np.ones((5, 4)),
        np.zeros((5, 4)),
        np.array([[0.0], [1.0], [1.0]]),
        np.array([[1.0, 0.0], [0.0, 1.0]]),
        np.array([[1.0, np.nan], [np.nan, np.nan]]),
        np.tile([1.0, 0.0, 1.0], (6, 1)),
        np.vstack([np.ones((3, 200)), np.zeros((3, 200))]),
    ],
    ids=["all right", "all wrong", "one item", "two by two", "one cell", "all alike", "far apart"],
)
def test_little_or_strange_responses_give_finite_numbers(responses):
    found = calibrate(responses, names(responses.shape[1]))
    bank = found.bank
    for values in (
        *(bank.discrimination, bank.difficulty, bank.discrimination_se, bank.difficulty_se),
        *(found.abilities, found.weights, found.log_likelihood),
    ):
        assert np.all(np.isfinite(values))


def test_a_model_without_responses_changes_no_item():
    responses = simulate(40, 20, 7)[3]
    with_empty = np.vstack([responses, np.full(20, np.nan)])
    found = calibrate(with_empty, names(20))
    assert found.abilities[-1] == pytest.approx(0, abs=1e-6)
    without = calibrate(responses, names(20))
    np.testing.assert_allclose(found.bank.difficulty, without.bank.difficulty, atol=0.05)


@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_order_of_models_and_items_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    responses = simulate(20, 15, 8, asked=0.8)[3]
    rows, columns = rng.permutation(20), rng.permutation(15)
    plain = calibrate(responses, names(15))
    mixed = calibrate(responses[rows][:, columns], names(15))
    np.testing.assert_allclose(
        mixed.bank.discrimination, plain.bank.discrimination[columns], rtol=1e-6
    )
    np.testing.assert_allclose(mixed.bank.difficulty, plain.bank.difficulty[columns], atol=1e-6)
    np.testing.assert_allclose(mixed.abilities, plain.abilities[rows], atol=1e-6)


def test_probability_is_the_logistic_curve():
    bank = ItemBank(("a", "b"), *(np.array(x) for x in ([1.0, 2.0], [0.0, 1.0], [0, 0], [0, 0])))
    np.testing.assert_allclose(
        bank.probability(np.array([0.0, 1.0])), [[0.5, expit(-1)], [expit(1), expit(1)]]
    )


def test_table_and_back():
    bank = calibrate(simulate(20, 5, 9)[3], names(5)).bank
    table = bank.to_table()
    assert table.column_names == [
        "item_id",
        "discrimination",
        "difficulty",
        "discrimination_se",
        "difficulty_se",
    ]
    back = ItemBank.from_table(table)
    assert back.items == bank.items
    for name in table.column_names[1:]:
        np.testing.assert_array_equal(getattr(back, name), getattr(bank, name))
    with pytest.raises(InputError, match="no column difficulty"):
        ItemBank.from_table(table.drop_columns(["difficulty"]))


def test_table_of_several_dimensions_and_back(tmp_path):
    random = np.random.default_rng(11)
    alpha, beta = random.normal(size=(4, 3)), random.normal(size=4)
    bank = ItemBank(tuple(names(4)), alpha, beta, np.abs(alpha), np.full(4, np.nan))
    assert bank.dimensions == 3
    pq.write_table(bank.to_table(), tmp_path / "bank.parquet")
    table = pq.read_table(tmp_path / "bank.parquet")
    back = ItemBank.from_table(table)
    assert back.items == bank.items
    for name in table.column_names[1:]:
        np.testing.assert_array_equal(getattr(back, name), getattr(bank, name))
    bad = table.set_column(1, "discrimination", [[[1.0, 2.0], [1.0], [1.0], [1.0]]])
    with pytest.raises(InputError, match="lists of equally many numbers"):
        ItemBank.from_table(bad)


def test_probability_with_several_abilities():
    bank = ItemBank(
        ("a", "b"), np.array([[1.0, -2.0], [0.0, 1.0]]), np.array([0.5, 0]), np.ones((2, 2)), [1, 1]
    )
    np.testing.assert_allclose(
        bank.probability(np.array([[0.0, 0.0], [1.0, 2.0]])),
        [[expit(-0.5), 0.5], [expit(1 - 4 - 0.5), expit(2)]],
    )


@pytest.mark.parametrize(
    ("responses", "items", "message"),
    [
        (np.zeros((3, 2)), ["a", "a"], "'a' occurs 2 times"),
        (np.zeros((3, 2)), ["a"], "does not fit 1 items"),
        (np.zeros(3), ["a", "b", "c"], "does not fit 3 items"),
        (np.zeros((1, 2)), ["a", "b"], "at least 2"),
        (np.array([[0, 1], [0.5, 1]]), ["a", "b"], "0.5 for item 'a' in row 1"),
        (np.array([[0, 1], [np.inf, 1]]), ["a", "b"], "inf for item 'a'"),
        (np.zeros((0, 2)), ["a", "b"], "0 models; calibration needs at least 2"),
        (np.zeros((3, 0)), [], "every cell of 3 models x 0 items is NaN"),
        (np.full((3, 2), np.nan), ["a", "b"], "every cell of 3 models x 2 items is NaN"),
    ],
)
def test_bad_responses_are_refused(responses, items, message):
    with pytest.raises(InputError, match=message):
        calibrate(responses, items)


def test_a_bad_bank_is_refused():
    ones = np.ones(2)
    with pytest.raises(InputError, match="occurs 2 times"):
        ItemBank(("a", "a"), ones, ones, ones, ones)
    with pytest.raises(InputError, match="difficulty has shape"):
        ItemBank(("a", "b"), ones, np.ones(3), ones, ones)
    with pytest.raises(InputError, match="discrimination of 'b' is 0"):
        ItemBank(("a", "b"), np.array([1.0, 0.0]), ones, ones, ones)
    with pytest.raises(InputError, match=r"discrimination_se has shape \(2,\), not \(2, 3\)"):
        ItemBank(("a", "b"), np.ones((2, 3)), ones, ones, ones)
    with pytest.raises(InputError, match="discrimination of 'b' is nan"):
        ItemBank(("a", "b"), np.array([[1, -1], [np.nan, 1]]), ones, np.ones((2, 2)), ones)
    with pytest.raises(InputError, match="difficulty of 'a' is nan"):
        ItemBank(("a", "b"), ones, np.array([np.nan, 0.0]), ones, ones)
