"""The Gaussian process, held to scikit-learn's and to what it would say after a refit."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import approx_fprime
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from mergelib.evolution.gaussian_process import LENGTH, LENGTH_SD, fit, kernel, loss


def _told(seed: int, n: int = 25, d: int = 4) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    x = rng.random((n, d))
    return x, np.sin(3 * x).sum(axis=1) + 0.2 * rng.standard_normal(n)


def _sklearn(
    lengths: NDArray[np.float64], noise: float, variance: float
) -> GaussianProcessRegressor:
    own = ConstantKernel(variance) * RBF(lengths) + WhiteKernel(variance * noise)
    return GaussianProcessRegressor(own, alpha=0.0, optimizer=None)


def _unequal(
    lengths: NDArray[np.float64], variance: float, noises: NDArray[np.float64]
) -> GaussianProcessRegressor:
    own = ConstantKernel(variance) * RBF(lengths)
    return GaussianProcessRegressor(own, alpha=variance * noises, optimizer=None)


@pytest.mark.parametrize("seed", range(3))
def test_means_and_deviations_are_those_of_scikit_learn(seed: int) -> None:
    x, y = _told(seed)
    points = np.random.default_rng(seed + 100).random((40, 4))
    process = fit(x, y)
    posterior = process.at(points)
    theirs = _sklearn(process.lengths, process.noise, process.variance).fit(x, y - y.mean())
    mean, deviation = theirs.predict(points, return_std=True)
    # Theirs is the deviation of a new score, noise included; ours is the process's alone.
    own = np.sqrt(posterior.deviation**2 + process.variance * process.noise)
    np.testing.assert_allclose(posterior.mean, y.mean() + mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(own, deviation, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_few_answers_are_noisier_as_in_scikit_learn(seed: int) -> None:
    x, y = _told(seed)
    points = np.random.default_rng(seed + 100).random((40, 4))
    answers = np.random.default_rng(seed + 200).choice([8.0, 15.0, 30.0, 150.0], size=len(x))
    process = fit(x, y, answers)
    w = np.median(answers) / answers
    z = y - process.centre
    theirs = _unequal(process.lengths, process.variance, process.noise * w).fit(x, z)
    mean, deviation = theirs.predict(points, return_std=True)
    posterior = process.at(points)
    np.testing.assert_allclose(posterior.mean, process.centre + mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(posterior.deviation, deviation, rtol=1e-6)

    theta = np.log([*process.lengths, process.noise])
    slope = approx_fprime(theta, lambda t: loss(t, x, z, w)[0], 1e-6)
    np.testing.assert_allclose(loss(theta, x, z, w)[1], slope, rtol=1e-3, atol=1e-3)


def test_as_many_answers_each_are_none_told() -> None:
    x, y = _told(0)
    one, other = fit(x, y), fit(x, y, np.full(len(x), 30.0))
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_array_equal(one.whitened, other.whitened)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_scikit_learns_likelihood_and_the_prior(seed: int) -> None:
    x, y = _told(seed)
    z = y - y.mean()
    rng = np.random.default_rng(seed)

    def theirs(theta: NDArray[np.float64]) -> float:
        lengths, noise = np.exp(theta[:-1]), float(np.exp(theta[-1]))
        K = kernel(x / lengths, x / lengths) + noise * np.eye(len(x))
        variance = float(z @ np.linalg.solve(K, z)) / len(z)  # the likeliest for these
        model = _sklearn(lengths, noise, variance).fit(x, z)
        prior = norm.logpdf(theta[:-1], np.log(LENGTH * np.sqrt(4 / 10)), LENGTH_SD).sum()
        return float(model.log_marginal_likelihood(model.kernel_.theta) + prior)

    thetas = rng.normal(0.0, 0.5, size=(4, 5)) - 0.5
    w = np.ones(len(x))
    ours = [loss(theta, x, z, w)[0] for theta in thetas]
    np.testing.assert_allclose(np.diff(ours), -np.diff([theirs(t) for t in thetas]), rtol=1e-6)
    for theta in thetas:
        slope = approx_fprime(theta, lambda t: loss(t, x, z, w)[0], 1e-6)
        np.testing.assert_allclose(loss(theta, x, z, w)[1], slope, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_process_is_likelier(seed: int) -> None:
    x, y = _told(seed, n=60)
    z, w = y - y.mean(), np.ones(len(x))
    process = fit(x, y)
    theta = np.log([*process.lengths, process.noise])
    best = loss(theta, x, z, w)[0]
    for random in np.random.default_rng(seed).normal(0.0, 0.4, size=(60, 5)):
        assert loss(theta + random, x, z, w)[0] > best - 0.01


def test_a_gene_that_matters_little_gets_a_long_length() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((120, 3))
    y = np.sin(6 * x[:, 0]) + 0.3 * x[:, 1] + 0.1 * rng.standard_normal(120)
    lengths = fit(x, y).lengths
    assert 2 * lengths[0] < lengths[1] < lengths[2]


def test_rounding_errors_do_not_change_the_process() -> None:
    x, y = _told(0, n=60)
    process = fit(x, y)
    other = fit(x * (1 + 1e-14), y * (1 - 1e-14))
    np.testing.assert_array_equal(process.lengths, other.lengths)
    assert process.noise == other.noise


def test_assuming_a_point_is_a_refit_with_its_mean_as_the_answer() -> None:
    x, y = _told(0)
    points = np.random.default_rng(7).random((30, 4))
    process = fit(x, y)
    posterior = process.at(points)
    for row in (3, 17):
        assumed = posterior.assuming(row)
        x = np.vstack([x, points[row]])
        scaled = x / process.lengths
        K = kernel(scaled, scaled) + process.noise * np.eye(len(x))
        across = kernel(scaled, points / process.lengths)
        variance = 1 - (across * np.linalg.solve(K, across)).sum(axis=0)
        np.testing.assert_allclose(assumed.variance, variance, atol=1e-9)
        np.testing.assert_array_equal(assumed.mean, posterior.mean)
        posterior = assumed


def test_draws_have_the_posteriors_mean_and_covariance() -> None:
    x, y = _told(2)
    points = np.vstack([x[:2], np.random.default_rng(3).random((4, 4)), np.full((2, 4), 0.5)])
    process = fit(x, y)
    posterior = process.at(points)
    drawn = posterior.draws(200_000, np.random.default_rng(0))
    own, across = (points / process.lengths, x / process.lengths)
    K = kernel(across, across) + process.noise * np.eye(len(x))
    with_told = kernel(own, across)
    covariance = kernel(own, own) - with_told @ np.linalg.solve(K, with_told.T)
    np.testing.assert_allclose(drawn.mean(axis=1), posterior.mean, atol=0.01 * posterior.scale)
    np.testing.assert_allclose(
        np.cov(drawn), process.variance * covariance, atol=0.02 * process.variance
    )
    np.testing.assert_allclose(drawn[-1], drawn[-2], atol=1e-3 * posterior.scale)


@pytest.mark.parametrize("scores", [[0.4], [0.4] * 6, [0.4, 0.4, 0.9]])
def test_few_or_equal_scores_give_finite_numbers(scores: list[float]) -> None:
    x = np.random.default_rng(0).random((len(scores), 3))
    posterior = fit(x, np.array(scores)).at(np.vstack([x, x + 0.01]).clip(0, 1))
    assert np.isfinite(posterior.mean).all()
    assert (posterior.deviation >= 0).all()


def test_the_same_genome_told_twice_is_no_obstacle() -> None:
    x = np.repeat(np.random.default_rng(0).random((5, 3)), 2, axis=0)
    posterior = fit(x, np.arange(10.0)).at(x)
    assert np.isfinite(posterior.mean).all()
