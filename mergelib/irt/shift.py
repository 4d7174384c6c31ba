"""A second trait: what a model adds to the logit of every item, beside its ability.

With one ability alone the posterior takes every response for evidence about the same thing. Real
benchmarks are not so: models of one ability differ in accuracy. Left out, this makes intervals too
narrow and, where many items hardly separate models (discriminations are above 0 by construction),
the curve from ability to accuracy too steep. Here
    logit p_i = alpha_i gamma - beta_i + delta,   (gamma, delta) ~ N(0, Sigma),
with alpha and beta as calibrated: the simplest bifactor model (Gibbons & Hedeker, 1992), its
general factor loading evenly, which is the direction that moves accuracy most.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.irt.bank import FloatArray, ItemBank

_NODES = np.linspace(-2.5, 2.5, 7)  # for what of the shift the ability leaves open
_SHARES = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()
_NODES /= np.sqrt(_SHARES @ _NODES**2)  # of variance 1 despite the cut


@dataclass(frozen=True)
class Shift:
    """How shifts go with ability, delta = slope * gamma + e, e ~ N(0, sd^2).

    Attributes:
        slope: logits a unit of ability.
        sd: of e, in logits; with 0 there is no second trait besides the slope.
        ability_sd: of ability among the calibration models, under this model; above 0.
    """

    slope: float = 0.0
    sd: float = 0.0
    ability_sd: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.slope) and 0 <= self.sd < np.inf and 0 < self.ability_sd < np.inf):
            raise InputError(f"{self}: the slope must be finite, sd at least 0, ability_sd above 0")

    @property
    def nodes(self) -> FloatArray:
        """Values (K,) of e, in logits, of a quadrature."""
        return _NODES * self.sd if self.sd > 0 else np.zeros(1)

    @property
    def shares(self) -> FloatArray:
        """The nodes' weights (K,), sum 1."""
        return _SHARES if self.sd > 0 else np.ones(1)

    def logits(
        self, bank: ItemBank, grid: FloatArray, items: NDArray[np.bool_] | None = None
    ) -> FloatArray:
        """Logit of a right answer to each item, (I, Q * K): abilities (Q,) by nodes (K,).

        Args:
            bank: the items.
            grid: (Q,) abilities.
            items: (N,) which items of the bank; None for all.
        """
        alpha, beta = bank.discrimination, bank.difficulty
        if items is not None:
            alpha, beta = alpha[items], beta[items]
        by_ability = np.outer(alpha + self.slope, grid) - beta[:, None]
        z: FloatArray = (by_ability[:, :, None] + self.nodes).reshape(
            len(alpha), grid.size * self.nodes.size
        )
        return z


NO_SHIFT = Shift()


def fit_shift(
    responses: FloatArray,
    bank: ItemBank,
    *,
    strength: float = 10.0,
    sd: float = 0.1,
    iterations: int = 50,
) -> Shift:
    """Estimate Sigma from the models that the bank was calibrated on, the items held.

    EM, each model's (gamma, delta) approximated by the normal distribution at its mode (Laplace).
    As if `strength` further models had been seen with abilities of variance 1 and shifts of sd
    `sd`, so that few models, or few responses, change little. The approximation draws a slope
    towards 0 where responses are few: by a fifth at 200 a model, simulated.

    Args:
        responses: (models, I) of 0, 1 or NaN; a model without responses is left out.
        bank: the items.
        strength: pseudo-models behind the start, above 0.
        sd: their shifts' standard deviation, in logits, above 0.
        iterations: limit of EM iterations.

    Returns:
        The shift; the start's where no model has a response.

    Raises:
        InputError: the shape does not fit the bank.
    """
    responses = np.asarray(responses, dtype=np.float64)
    if responses.ndim != 2 or responses.shape[1] != len(bank):
        raise InputError(f"responses: shape {responses.shape} does not fit {len(bank)} items")
    responses = responses[~np.isnan(responses).all(axis=1)]
    asked = (~np.isnan(responses)).astype(np.float64)
    y = np.where(asked > 0, responses, 0.0)
    start = np.diag([1.0, sd**2])
    sigma, traits = start, np.zeros((len(y), 2))
    for n in range(iterations):
        precision = np.linalg.inv(sigma)
        for _ in range(8 if n == 0 else 2):
            slope, curvature = _derivatives(traits, y, asked, bank, precision)
            step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
            traits = traits + step / np.maximum(np.abs(step).max(1, keepdims=True), 1.0)
        _, curvature = _derivatives(traits, y, asked, bank, precision)
        scatter = traits.T @ traits + np.linalg.inv(curvature).sum(0)
        new = (scatter + strength * start) / (len(y) + strength)
        done = np.abs(new - sigma).max() < 1e-4
        sigma = new
        if done:
            break
    slope_of = float(sigma[0, 1] / sigma[0, 0])
    left = float(sigma[1, 1] - slope_of * sigma[0, 1])
    return Shift(slope_of, float(np.sqrt(max(left, 0.0))), float(np.sqrt(sigma[0, 0])))


def _derivatives(
    traits: FloatArray, y: FloatArray, asked: FloatArray, bank: ItemBank, precision: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Slope (models, 2) and negative curvature (models, 2, 2) of the log-posterior."""
    alpha = bank.discrimination
    p = expit(np.outer(traits[:, 0], alpha) + traits[:, 1:] - bank.difficulty)
    gap, w = asked * (y - p), asked * p * (1 - p)
    slope = np.column_stack([gap @ alpha, gap.sum(1)]) - traits @ precision
    curvature = np.empty((len(y), 2, 2))
    curvature[:, 0, 0], curvature[:, 1, 1] = w @ alpha**2, w.sum(1)
    curvature[:, 0, 1] = curvature[:, 1, 0] = w @ alpha
    return slope, curvature + precision
