"""The posterior of a model's accuracy over exactly the bank's N items, some of them seen.

A = [sum_S Y_i + sum_U Y_i] / N: the seen responses are known, the unseen ones independent Bernoulli
given ability (and shift). So the posterior of A is a mixture of nearly normal distributions, one a
quadrature node, and its width goes to zero as n goes to N.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from mergelib.intervals import normal_mixture_quantile
from mergelib.irt.bank import GRID, FloatArray, ItemBank
from mergelib.irt.shift import NO_SHIFT, Shift

POOLS = 64  # parts of the mixture whose quantiles are sought


class Estimates(NamedTuple):
    """Estimated accuracies with their intervals.

    Attributes:
        value: (C,) in [0, 1]; NaN for a candidate without any response.
        low: (C,) lower limits, at most `value`.
        high: (C,) upper limits, at least `value`.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray


def accuracy_posterior(
    responses: FloatArray,
    bank: ItemBank,
    prior: FloatArray,
    *,
    shift: Shift = NO_SHIFT,
    value: FloatArray | None = None,
    widening: float = 1.0,
    level: float = 0.95,
) -> Estimates:
    """Mean and quantiles of A.

    Args:
        responses: (C, N) of 0, 1 or NaN, checked.
        bank: the N items.
        prior: (Q,) weights of the abilities of `GRID`, sum 1.
        shift: the second trait; without one there is ability alone.
        value: (C,) estimates to put the interval around, instead of the posterior mean.
        widening: factor on what not knowing ability and shift adds to the interval, at least 0.
            The chance left in the unseen responses is known exactly and stays as it is.
        level: of the interval.

    Returns:
        NaN for a candidate without any response.
    """
    columns = np.any(~np.isnan(responses), axis=0)  # a few dozen of a thousand, in a generation
    responses, total = responses[:, columns], responses.shape[1]
    seen = ~np.isnan(responses)
    y, asked = np.where(seen, responses, 0.0), seen.astype(np.float64)
    right, n = y.sum(1), seen.sum(1)
    z = shift.logits(bank, GRID, columns)  # (n, R), R = Q K nodes
    p = expit(z)
    nodes = z.shape[1]
    # One product gives the likelihood's normaliser and what the seen items take off the totals.
    sums = asked @ np.hstack([np.logaddexp(0, z), p, p * (1 - p)])
    with np.errstate(divide="ignore"):
        log_prior = (np.log(prior)[:, None] + np.log(shift.shares)).ravel()
    log_joint = y @ z - sums[:, :nodes] + log_prior
    weights = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))  # (C, R), up to a factor
    held = weights.max(axis=0, initial=0.0) > 1e-9
    weights = weights[:, held] / weights[:, held].sum(1, keepdims=True)
    mean_of_all, variance_of_all = _totals(bank, shift)
    unseen = mean_of_all[held] - sums[:, nodes : 2 * nodes][:, held]
    centre = (right[:, None] + unseen) / total
    chance = variance_of_all[held] - sums[:, 2 * nodes :][:, held]
    spread = np.sqrt(np.maximum(chance, 0.0)) / total
    return mixture_estimates(
        Mixture(weights, centre, spread),
        Seen(right, n, total),
        value=value,
        widening=widening,
        level=level,
    )


class Mixture(NamedTuple):
    """A posterior of A as nearly normal parts, (C, R) each.

    Attributes:
        weights: each row's sum 1.
        centre: A's expectation in a part.
        spread: its standard deviation there: the chance left in the unseen responses.
    """

    weights: FloatArray
    centre: FloatArray
    spread: FloatArray


class Seen(NamedTuple):
    """What candidates answered: how many right (C,), of how many (C,), of N in all."""

    right: FloatArray
    n: FloatArray
    total: int


def mixture_estimates(
    mixture: Mixture, seen: Seen, *, value: FloatArray | None, widening: float, level: float
) -> Estimates:
    """Mean and quantiles of a mixture, the parts' centres stretched; see `accuracy_posterior`."""
    weights, centre, spread = mixture
    right, n, total = seen
    if value is None:
        value = (weights * centre).sum(1)
    value = np.where(n > 0, np.clip(value, 0.0, 1.0), np.nan)
    stretched = value[:, None] + widening * (centre - value[:, None])
    parts = weights, stretched, spread
    if weights.shape[1] > 2 * POOLS:
        parts = _pooled(*parts)
    tail = (1 - level) / 2
    low, high = (normal_mixture_quantile(*parts, share) for share in (tail, 1 - tail))
    low, high = possible(low, high, right, n, total)
    return Estimates(value, np.minimum(low, value), np.maximum(high, value))


def possible(
    low: FloatArray, high: FloatArray, right: FloatArray, n: FloatArray, total: int
) -> tuple[FloatArray, FloatArray]:
    """Limits kept to what the seen items leave possible: the unseen all wrong, or all right."""
    return np.maximum(low, right / total), np.minimum(high, (right + total - n) / total)


def _pooled(
    weights: FloatArray, means: FloatArray, sds: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mixtures (C, R) with neighbouring parts pooled to (C, POOLS), their variances kept.

    The pools are a sixth of a standard deviation wide or so, which no quantile feels.
    """
    count = len(weights)
    held = weights > 1e-9
    low = np.min(means, axis=1, where=held, initial=np.inf)[:, None]
    high = np.max(means, axis=1, where=held, initial=-np.inf)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.nan_to_num((means - low) / (high - low)) * POOLS
    pool = np.clip(place.astype(np.int64), 0, POOLS - 1) + POOLS * np.arange(count)[:, None]

    def summed(values: FloatArray) -> FloatArray:
        sums = np.bincount(pool.ravel(), values.ravel(), minlength=POOLS * count)
        return sums.astype(np.float64).reshape(count, POOLS)

    mass = summed(weights)
    share = np.maximum(mass, 1e-300)
    mean = summed(weights * means) / share
    within = means - np.take_along_axis(mean, pool % POOLS, axis=1)
    variance = summed(weights * (sds**2 + within**2)) / share
    return mass, mean, np.sqrt(variance)


@lru_cache(maxsize=8)
def _totals(bank: ItemBank, shift: Shift) -> tuple[FloatArray, FloatArray]:
    """Expected number right of all N items, and its variance, at each node (R,)."""
    p = expit(shift.logits(bank, GRID))
    return p.sum(0), (p * (1 - p)).sum(0)
