"""A Gaussian process over genomes: what few noisy scores say of the recipes in between.

One length scale for each gene (automatic relevance determination), a constant mean, and noise that
is the smaller the more answers a score rests on. Lengths and noise have the highest marginal
likelihood, the lengths under a log-normal prior, without which a gene of which little is known
would be taken for one that matters little; the scale of the process follows in closed form
(Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", sections 2.2, 5.1 and
5.4.1).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

FloatArray = NDArray[np.float64]

LENGTH = 1.35
"""Median of the prior on a length, times the root of d / 10, with which distances grow."""

LENGTH_SD = 0.5
"""Standard deviation of the prior on a length's logarithm."""

LENGTHS = (0.1, 20.0)
"""The shortest and the longest, times the same root."""

NOISES = (1e-4, 3.0)
"""The least and the largest variance of the noise, in those of the process."""

_START = (0.9, 0.3)
"""Of the climb: the lengths, times the same root, and the noise."""

_STEPS, _GAIN = 30, 1e-6
"""The climb ends after so many steps, or with one that gains so little of the loss."""

_ROUNDED = 16
"""Lengths and noise are kept to sixteenths of a natural logarithm, so that the rounding errors of
another machine hardly ever change a search."""

_JITTER = 1e-8
"""Added to variances of which a matrix's root is taken, which points next to each other need."""

_TINY = 1e-12
"""Where a variance is no larger, rounding is all that is left of it."""


def kernel(x: FloatArray, z: FloatArray) -> FloatArray:
    """The squared exponential of distances: x (n, d) and z (m, d) give (n, m) in [0, 1].

    Both in units of the lengths.
    """
    squared = (x**2).sum(axis=1)[:, None] + (z**2).sum(axis=1) - 2.0 * x @ z.T
    correlation: FloatArray = np.exp(np.maximum(squared, 0.0) / -2.0)
    return correlation


@dataclass(frozen=True)
class Posterior:
    """What a process says of m points: their means, and how sure it is.

    Attributes:
        mean: (m,), in the units of the fitness.
        variance: (m,), of the process without the noise, in units of its own variance.
        scale: standard deviation of the process, in the units of the fitness.
        noise: variance of an ordinary score's noise, in those of the process.
        scaled: (m, d), the points in units of the lengths.
        whitened: (n, m), L^-1 k(told, points), with a row for each point that was told or assumed.
    """

    mean: FloatArray
    variance: FloatArray
    scale: float
    noise: float
    scaled: FloatArray
    whitened: FloatArray

    @property
    def deviation(self) -> FloatArray:
        """(m,), in the units of the fitness."""
        return self.scale * np.sqrt(self.variance)

    def draws(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw what the points may be worth, jointly and without noise: (m, count)."""
        covariance = kernel(self.scaled, self.scaled) - self.whitened.T @ self.whitened
        root = _factor(covariance, np.full(len(covariance), _JITTER))
        normal = rng.standard_normal((len(covariance), count))
        drawn: FloatArray = self.mean[:, None] + self.scale * (root @ normal)
        return drawn

    def assuming(self, row: int) -> "Posterior":
        """The posterior once a point is asked whose answer is its mean.

        The means stay as they are and only the variance shrinks, so that points asked at one time
        differ (Desautels, Krause and Burdick 2014, "Parallelizing exploration-exploitation
        tradeoffs in Gaussian process bandit optimization").

        Args:
            row: of the point in `scaled`.
        """
        prior = kernel(self.scaled, self.scaled[row : row + 1])[:, 0]
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
        lengths: (d,), of the kernel.
        noise: variance of an ordinary score's noise, in those of the process.
        variance: of the process, in the squared units of the fitness.
        factor: (n, n), L of K + noise diag(w) = L L^T.
        whitened: (n,), L^-1 of the fitness less its mean.
    """

    x: FloatArray
    centre: float
    lengths: FloatArray
    noise: float
    variance: float
    factor: FloatArray
    whitened: FloatArray

    def at(self, points: FloatArray) -> Posterior:
        """Read the process off at (m, d) points."""
        scaled = points / self.lengths
        covariance = kernel(self.x / self.lengths, scaled)
        whitened = solve_triangular(self.factor, covariance, lower=True, check_finite=False)
        return Posterior(
            mean=self.centre + whitened.T @ self.whitened,
            variance=np.maximum(1.0 - (whitened**2).sum(axis=0), _TINY),
            scale=float(np.sqrt(self.variance)),
            noise=self.noise,
            scaled=scaled,
            whitened=whitened,
        )


def fit(x: FloatArray, y: FloatArray, answers: FloatArray | None = None) -> Process:
    """Fit a process to scores.

    Args:
        x: (n, d), the genomes told; n >= 1.
        y: (n,), their fitness, finite.
        answers: (n,), on how many each rests, above 0; None for as many each. The noise of one that
            rests on the median of them is the ordinary one.
    """
    w = np.ones(len(y)) if answers is None else np.median(answers) / answers
    centre = float(np.average(y, weights=1.0 / (1.0 + w)))
    z = y - centre
    lengths, noise = _likeliest(x, z, w)
    factor = _factor(kernel(x / lengths, x / lengths), noise * w)
    whitened = solve_triangular(factor, z, lower=True, check_finite=False)
    return Process(x, centre, lengths, noise, _variance(whitened), factor, whitened)


def loss(
    theta: FloatArray, x: FloatArray, z: FloatArray, w: FloatArray
) -> tuple[float, FloatArray]:
    """What the likeliest process has least of, with its gradient.

    Args:
        theta: (d + 1,), logarithms of the lengths and of the noise.
        x: (n, d), the genomes told.
        z: (n,), their fitness less its mean.
        w: (n,), the variances of their noise, in that of an ordinary one's.

    Returns:
        Minus the logarithm of marginal likelihood times prior, up to a constant, at the variance of
        the process that has the highest; and (d + 1,) its derivatives.
    """
    lengths, noise = np.exp(theta[:-1]), float(np.exp(theta[-1]))
    scaled = x / lengths
    k = kernel(scaled, scaled)
    factor = _factor(k, noise * w)
    inverse = cho_solve((factor, True), np.eye(len(z)), check_finite=False)
    weights = inverse @ z
    variance = max(float(z @ weights) / len(z), _TINY)
    surplus = theta[:-1] - np.log(LENGTH * _root(x))
    value = (
        0.5 * len(z) * np.log(variance)
        + np.log(np.diag(factor)).sum()
        + 0.5 * (surplus**2).sum() / LENGTH_SD**2
    )
    # Half of this is how the log-likelihood rises with each entry of K + noise diag(w).
    rise = np.outer(weights, weights) / variance - inverse
    # dK / d log l_j = K (x_j - x_j')^2 / l_j^2, and the square is multiplied out.
    pull = rise * k
    by_length = (pull.sum(axis=1)[:, None] * scaled**2).sum(axis=0)
    by_length -= (scaled * (pull @ scaled)).sum(axis=0)
    slope = np.append(surplus / LENGTH_SD**2 - by_length, -0.5 * noise * (w @ np.diag(rise)))
    return float(value), slope


def _likeliest(x: FloatArray, z: FloatArray, w: FloatArray) -> tuple[FloatArray, float]:
    """The lengths (d,) and the noise of the likeliest process, by L-BFGS-B."""
    d, root = x.shape[1], _root(x)
    length, noise = _START
    found = minimize(
        loss,
        np.log([*[length * root] * d, noise]),
        args=(x, z, w),
        jac=True,
        method="L-BFGS-B",
        bounds=[tuple(np.log(root * np.array(LENGTHS)))] * d + [tuple(np.log(NOISES))],
        options={"maxiter": _STEPS, "ftol": _GAIN},
    )
    rounded = np.exp(np.round(found.x * _ROUNDED) / _ROUNDED)
    return rounded[:-1], float(rounded[-1])


def _root(x: FloatArray) -> float:
    return float(np.sqrt(x.shape[1] / 10))


def _factor(k: FloatArray, noises: FloatArray) -> FloatArray:
    factor: FloatArray = cholesky(k + np.diag(noises), lower=True, check_finite=False)
    return factor


def _variance(whitened: FloatArray) -> float:
    """Of the process, by its likelihood."""
    return max(float(whitened @ whitened) / len(whitened), _TINY)
