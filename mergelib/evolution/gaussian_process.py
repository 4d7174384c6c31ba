"""A Gaussian process over genomes: what few noisy scores say of the recipes in between.

One length scale for all genes, a constant mean and homoscedastic noise; length and noise are those
of a grid with the highest marginal likelihood, the scale of the process follows from them in
closed form (Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", sections 2.2
and 5.4.1). A grid rather than a gradient: it cannot fail to converge, and a search that resumes
finds the same process.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, eigh, solve_triangular

FloatArray = NDArray[np.float64]

LENGTHS = (0.25, 0.4, 0.6, 0.9, 1.35, 2.0)
"""Times the root of d / 10: distances in the box grow with the root of d."""

NOISES = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Variance of the noise, in those of the process."""

_TINY = 1e-12
"""Where a variance is no larger, rounding is all that is left of it."""


def kernel(x: FloatArray, z: FloatArray, length: float) -> FloatArray:
    """The squared exponential of distances: x (n, d) and z (m, d) give (n, m) in [0, 1]."""
    squared = (x**2).sum(axis=1)[:, None] + (z**2).sum(axis=1) - 2.0 * x @ z.T
    correlation: FloatArray = np.exp(np.maximum(squared, 0.0) / (-2.0 * length**2))
    return correlation


@dataclass(frozen=True)
class Posterior:
    """What a process says of m points: their means, and how sure it is.

    Attributes:
        mean: (m,), in the units of the fitness.
        variance: (m,), of the process without the noise, in units of its own variance.
        scale: standard deviation of the process, in the units of the fitness.
        noise: variance of the noise, in those of the process.
        points: (m, d).
        length: of the kernel.
        whitened: (n, m), L^-1 k(told, points), with a row for each point that was told or assumed.
    """

    mean: FloatArray
    variance: FloatArray
    scale: float
    noise: float
    points: FloatArray
    length: float
    whitened: FloatArray

    @property
    def deviation(self) -> FloatArray:
        """(m,), in the units of the fitness."""
        return self.scale * np.sqrt(self.variance)

    def assuming(self, row: int) -> "Posterior":
        """The posterior once a point is asked whose answer is its mean.

        The means stay as they are and only the variance shrinks, so that points asked at one time
        differ (Desautels, Krause and Burdick 2014, "Parallelizing exploration-exploitation
        tradeoffs in Gaussian process bandit optimization").

        Args:
            row: of the point in `points`.
        """
        prior = kernel(self.points, self.points[row : row + 1], self.length)[:, 0]
        covariance = prior - self.whitened.T @ self.whitened[:, row]
        step = covariance / np.sqrt(self.variance[row] + self.noise)
        return replace(
            self,
            variance=np.maximum(self.variance - step**2, _TINY),
            whitened=np.vstack([self.whitened, step]),
        )


@dataclass(frozen=True)
class Process:
    """A process fitted to scores.

    Attributes:
        x: (n, d), the genomes told.
        centre: mean of their fitness.
        length: of the kernel.
        noise: variance of the noise, in those of the process.
        variance: of the process, in the squared units of the fitness.
        factor: (n, n), L of K + noise I = L L^T.
        whitened: (n,), L^-1 of the fitness less its mean.
    """

    x: FloatArray
    centre: float
    length: float
    noise: float
    variance: float
    factor: FloatArray
    whitened: FloatArray

    def at(self, points: FloatArray) -> Posterior:
        """Read the process off at (m, d) points."""
        covariance = kernel(self.x, points, self.length)
        whitened = solve_triangular(self.factor, covariance, lower=True, check_finite=False)
        return Posterior(
            mean=self.centre + whitened.T @ self.whitened,
            variance=np.maximum(1.0 - (whitened**2).sum(axis=0), _TINY),
            scale=float(np.sqrt(self.variance)),
            noise=self.noise,
            points=points,
            length=self.length,
            whitened=whitened,
        )


def fit(x: FloatArray, y: FloatArray) -> Process:
    """Fit a process to scores.

    Args:
        x: (n, d), the genomes told; n >= 1.
        y: (n,), their fitness, finite.
    """
    centre = float(y.mean())
    z = y - centre
    length, noise, variance = _likeliest(x, z)
    factor: FloatArray = cholesky(kernel(x, x, length) + noise * np.eye(len(x)), lower=True)
    whitened = solve_triangular(factor, z, lower=True, check_finite=False)
    return Process(x, centre, length, noise, variance, factor, whitened)


def _likeliest(x: FloatArray, z: FloatArray) -> tuple[float, float, float]:
    """Length, noise and variance of the process that make the scores likeliest."""
    noises = np.array(NOISES)
    best = -np.inf
    likeliest = (LENGTHS[-1], NOISES[-1], _TINY)
    for length in np.sqrt(x.shape[1] / 10) * np.array(LENGTHS):
        # K = Q diag(e) Q^T once, then K + noise I is free for each noise.
        e, Q = eigh(kernel(x, x, length), check_finite=False)
        spectra = np.maximum(e, 0.0) + noises[:, None]
        variances = np.maximum(((Q.T @ z) ** 2 / spectra).mean(axis=1), _TINY)
        likelihoods = -0.5 * (len(z) * np.log(variances) + np.log(spectra).sum(axis=1))
        row = int(np.argmax(likelihoods))
        if likelihoods[row] > best:
            best = likelihoods[row]
            likeliest = (float(length), NOISES[row], float(variances[row]))
    return likeliest
