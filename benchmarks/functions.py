"""Analytic functions on [0, 1]^d with known optima, turned to be maximised."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from deap.tools import uniform_reference_points
from numpy.typing import NDArray
from scipy.stats import qmc

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Function:
    """What is searched, and how far from its optimum a search has come.

    Attributes:
        name: the key in `FUNCTIONS`.
        dimension: d.
        objectives: k.
        value: (n, d) -> (n, k), maximised.
        optimum: (m, k), the best value, or points all over the best front.
    """

    name: str
    dimension: int
    objectives: int
    value: Callable[[FloatArray], FloatArray]
    optimum: FloatArray

    def gap(self, values: FloatArray) -> float:
        """Mean distance from the optimum's points to the closest of `values`, (n, k).

        With one objective what is left to the best value, with several the inverted generational
        distance (Coello and Reyes Sierra 2004). The lower the better.
        """
        distances = np.linalg.norm(self.optimum[:, None] - values[None], axis=2)
        return float(distances.min(axis=1).mean())

    def scale(self) -> FloatArray:
        """(k,) standard deviations over the box, which noise is measured in."""
        points = qmc.Sobol(self.dimension, rng=0).random_base2(12)
        deviations: FloatArray = self.value(points).std(axis=0)
        return deviations


def _shift(d: int) -> FloatArray:
    """The best point: neither the middle of the box nor a corner."""
    return np.resize([0.3, 0.95], d)


def _sphere(x: FloatArray) -> FloatArray:
    z = x - _shift(x.shape[1])
    return -(z**2).sum(axis=1, keepdims=True)


def _rastrigin(x: FloatArray) -> FloatArray:
    """Rastrigin (1974): a wave on the sphere, with a step of 5.12 for half the box."""
    z = 10.24 * (x - _shift(x.shape[1]))
    return -(z**2 + 10 * (1 - np.cos(2 * np.pi * z))).sum(axis=1, keepdims=True)


def _zdt1(x: FloatArray) -> FloatArray:
    """Zitzler, Deb and Thiele (2000), eq. 7."""
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    return -np.stack([x[:, 0], g * (1 - np.sqrt(x[:, 0] / g))], axis=1)


def _dtlz2(x: FloatArray) -> FloatArray:
    """Deb, Thiele, Laumanns and Zitzler (2002), three objectives."""
    g = ((x[:, 2:] - 0.5) ** 2).sum(axis=1)
    a, b = np.pi / 2 * x[:, 0], np.pi / 2 * x[:, 1]
    directions = [np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)]
    return -(1 + g)[:, None] * np.stack(directions, axis=1)


def _zdt1_front() -> FloatArray:
    f1 = np.linspace(0, 1, 500)
    return -np.stack([f1, 1 - np.sqrt(f1)], axis=1)


def _dtlz2_front() -> FloatArray:
    points: FloatArray = uniform_reference_points(3, 30)
    return -points / np.linalg.norm(points, axis=1, keepdims=True)


FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in (
        Function("sphere", 10, 1, _sphere, np.zeros((1, 1))),
        Function("rastrigin", 10, 1, _rastrigin, np.zeros((1, 1))),
        Function("zdt1", 30, 2, _zdt1, _zdt1_front()),
        Function("dtlz2", 12, 3, _dtlz2, _dtlz2_front()),
    )
}
