"""The Gaussian process, held to scikit-learn's and to what it would say after a refit."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from mergelib.evolution.gaussian_process import LENGTHS, NOISES, fit, kernel


def _told(seed: int, n: int = 25, d: int = 4) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    x = rng.random((n, d))
    return x, np.sin(3 * x).sum(axis=1) + 0.2 * rng.standard_normal(n)


def _sklearn(length: float, noise: float, variance: float) -> GaussianProcessRegressor:
    own = ConstantKernel(variance) * RBF(length) + WhiteKernel(variance * noise)
    return GaussianProcessRegressor(own, alpha=0.0, optimizer=None)


@pytest.mark.parametrize("seed", range(3))
def test_means_and_deviations_are_those_of_scikit_learn(seed: int) -> None:
    x, y = _told(seed)
    points = np.random.default_rng(seed + 100).random((40, 4))
    process = fit(x, y)
    posterior = process.at(points)
    theirs = _sklearn(process.length, process.noise, process.variance).fit(x, y - y.mean())
    mean, deviation = theirs.predict(points, return_std=True)
    # Theirs is the deviation of a new score, noise included; ours is the process's alone.
    own = np.sqrt(posterior.deviation**2 + process.variance * process.noise)
    np.testing.assert_allclose(posterior.mean, y.mean() + mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(own, deviation, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_process_of_the_grid_is_likelier(seed: int) -> None:
    x, y = _told(seed)
    z = y - y.mean()
    process = fit(x, y)

    def likelihood(length: float, noise: float, variance: float) -> float:
        model = _sklearn(length, noise, variance).fit(x, z)
        return float(model.log_marginal_likelihood(model.kernel_.theta))

    best = likelihood(process.length, process.noise, process.variance)
    for factor in (0.8, 1.25):
        assert likelihood(process.length, process.noise, process.variance * factor) < best
    for length, noise in product(np.sqrt(4 / 10) * np.array(LENGTHS), NOISES):
        K = kernel(x, x, length) + noise * np.eye(len(x))
        variance = float(z @ np.linalg.solve(K, z)) / len(z)  # the likeliest for this pair
        assert likelihood(length, noise, variance) <= best + 1e-6


def test_assuming_a_point_is_a_refit_with_its_mean_as_the_answer() -> None:
    x, y = _told(0)
    points = np.random.default_rng(7).random((30, 4))
    process = fit(x, y)
    posterior = process.at(points)
    for row in (3, 17):
        assumed = posterior.assuming(row)
        x = np.vstack([x, points[row]])
        K = kernel(x, x, process.length) + process.noise * np.eye(len(x))
        across = kernel(x, points, process.length)
        variance = 1 - (across * np.linalg.solve(K, across)).sum(axis=0)
        np.testing.assert_allclose(assumed.variance, variance, atol=1e-9)
        np.testing.assert_array_equal(assumed.mean, posterior.mean)
        posterior = assumed


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
