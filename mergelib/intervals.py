"""Confidence intervals for shares and for differences between two models."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from mergelib.errors import InputError

FloatArray = NDArray[np.float64]

PRIOR_ITEMS = 2.0
"""Right-or-wrong items behind the variance of other scores."""


class Interval(NamedTuple):
    """An estimate with its confidence limits.

    Arrays of one shape, or NumPy scalars where the input was for one case; NaN where there was
    nothing to estimate from.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray


def wilson(
    successes: ArrayLike, n: ArrayLike, level: float = 0.95, population: ArrayLike | None = None
) -> Interval:
    """Score interval of a share (Wilson, 1927).

    With a `population` the share is that of all its items, of which n were drawn at random: the
    variance is the hypergeometric one, as if n (N - 1) / (N - n) had been drawn with replacement,
    and the limits keep to what the seen items leave possible. With n = N the width is zero.

    Args:
        successes: (...) number right, 0 to n; may be a sum of scores within [0, 1].
        n: (...) number of items scored; may be an effective number.
        level: confidence, above 0 and below 1.
        population: (...) N, number of items in all, or None for infinitely many.

    Returns:
        Shares in [0, 1]; NaN where n is 0.

    Raises:
        InputError: `level` is outside (0, 1), or successes outside [0, n], or n above N.
    """
    k, m = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = _normal_quantile(level)
    if np.any((k < 0) | (k > m + 1e-9)):
        raise InputError("interval: successes outside 0 to n")
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(m > 0, k / m, np.nan)
        inverse = 1.0 / m  # of the effective number, so that a full population has none left over
        floor, ceiling = np.zeros_like(p), np.ones_like(p)
        if population is not None:
            size = np.asarray(population, dtype=np.float64)
            if np.any(m > size):
                raise InputError(f"interval: {m.max():g} items scored of {size.min():g}")
            inverse = np.where(m == size, 0.0, inverse * (size - m) / np.maximum(size - 1, 1))
            floor, ceiling = k / size, 1 - (m - k) / size
        z2 = z * z * inverse
        centre = (p + z2 / 2) / (1 + z2)
        half = np.sqrt(z2 * (p * (1 - p) + z2 / 4)) / (1 + z2)
    # p itself lies within; rounding must not push a limit past it
    low = np.clip(np.minimum(centre - half, p), floor, p)
    high = np.clip(np.maximum(centre + half, p), p, ceiling)
    return Interval(p[()], low[()], high[()])


def mean_score(scores: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the mean of scores from 0 to 1, of items drawn at random.

    Wilson's at the number of right-or-wrong items that would know the mean as well,
    n m (1 - m) / s^2 with m the mean and s^2 the scores' variance: scores that are all 0 or 1 have
    s^2 = m (1 - m), so that it is Wilson's interval itself, and no limit leaves [0, 1]. As if
    `PRIOR_ITEMS` further scores had the variance of right-or-wrong ones, so that a few scores that
    happen to be alike do not claim to know the mean.

    Args:
        scores: (..., I) in [0, 1]; NaN where not scored.
        level: confidence, above 0 and below 1.

    Returns:
        (...) means; all NaN without a score.

    Raises:
        InputError: `level` is outside (0, 1), or a score outside [0, 1].
    """
    y = np.asarray(scores, dtype=np.float64)
    known = ~np.isnan(y)
    if np.any(known & ~((y >= 0) & (y <= 1))):
        raise InputError("interval: a score outside 0 to 1")
    n = known.sum(-1).astype(np.float64)
    total = np.nansum(y, axis=-1)
    if np.all(~known | (y == 0) | (y == 1)):
        return wilson(total, n, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        m = total / n
        binary = m * (1 - m)
        squares = np.where(known, (y - m[..., None]) ** 2, 0.0).sum(-1)
        variance = (squares + PRIOR_ITEMS * binary) / (n + PRIOR_ITEMS)
        effective = np.where(variance > 0, n * binary / variance, n)
    interval = wilson(np.nan_to_num(m) * effective, effective, level)
    return Interval(m[()], interval.low, interval.high)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Difference of two models' mean scores on the same items, mean(a) - mean(b).

    Items that either model has no score for are left out. Scores that are all 0 or 1: square-and-
    add of Wilson limits with the continuity-corrected correlation (Newcombe, 1998, Statistics in
    Medicine 17:2635, method 10). Any other score in the call: Student's t of the differences.

    Args:
        a: (..., I) scores of the one model; NaN where not scored.
        b: (..., I) scores of the other, broadcast against `a`.
        level: confidence, above 0 and below 1.

    Returns:
        (...) differences in the scores' unit; all NaN without a common item, and limits NaN for a
        t interval on a single item.

    Raises:
        InputError: `level` is outside (0, 1), or the shapes do not match.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim == 0 or y.ndim == 0 or x.shape[-1] != y.shape[-1]:
        raise InputError(
            f"paired difference: shapes {x.shape} and {y.shape}; give both models' scores on the "
            "same items"
        )
    x, y = np.broadcast_arrays(x, y)
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = np.where(both, x, 0.0), np.where(both, y, 0.0)
    n = both.sum(-1).astype(np.float64)
    if np.all((x == 0) | (x == 1)) and np.all((y == 0) | (y == 1)):
        return _newcombe(x, y, n, level)
    return _student(x - y, both, n, level)


def normal_mixture_quantile(
    weights: FloatArray, means: FloatArray, sds: FloatArray, probability: float
) -> FloatArray:
    """Quantile of mixtures of normals, to 1e-9 of the mixture's range.

    Newton's method kept inside a bracket.

    Args:
        weights: (C, Q), each row's sum 1.
        means: (C, Q).
        sds: (C, Q), at least 0.
        probability: above 0 and below 1.

    Returns:
        (C,) quantiles; NaN where a weight or mean is NaN.
    """
    bad = np.any(np.isnan(weights + means), axis=1)
    weights = np.where(bad[:, None], 1.0 / max(weights.shape[1], 1), weights)
    means, sds = np.where(bad[:, None], 0.0, means), np.maximum(sds, 1e-12)
    # Each part's own quantile bounds the mixture's. Parts without weight do not count.
    own = means + ndtri(probability) * sds
    held = weights > 1e-12
    low = np.min(own, axis=1, where=held, initial=np.inf)
    high = np.max(own, axis=1, where=held, initial=-np.inf)
    tolerance = 1e-9 * np.maximum(high - low, 1e-300)
    density_weights = weights / (sds * np.sqrt(2 * np.pi))
    x = np.clip((weights * own).sum(1), low, high)
    for _ in range(60):
        z = (x[:, None] - means) / sds
        gap = (weights * ndtr(z)).sum(1) - probability
        low, high = np.where(gap < 0, x, low), np.where(gap < 0, high, x)
        density = (density_weights * np.exp(-0.5 * z * z)).sum(1)
        newton = x - gap / np.maximum(density, 1e-300)
        following = np.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
        moved = np.abs(following - x)
        x = following
        if np.all(moved <= tolerance):
            break
    return np.where(bad, np.nan, x)


def _newcombe(x: FloatArray, y: FloatArray, n: FloatArray, level: float) -> Interval:
    right_x, right_y, e = x.sum(-1), y.sum(-1), (x * y).sum(-1)
    f, g = right_x - e, right_y - e  # only the one right, only the other right
    h = n - e - f - g
    one, two = wilson(right_x, n, level), wilson(right_y, n, level)
    # phi, with the numerator drawn n / 2 towards 0 where it is positive (method 10)
    cross = e * h - f * g
    cross = np.where(cross > 0, np.maximum(cross - n / 2, 0.0), cross)
    scale = np.sqrt((e + f) * (g + h) * (e + g) * (f + h))
    phi = np.where(scale > 0, cross / np.where(scale > 0, scale, 1.0), 0.0)
    down_one, up_one = one.value - one.low, one.high - one.value
    down_two, up_two = two.value - two.low, two.high - two.value
    value = one.value - two.value
    delta = np.sqrt(np.maximum(down_one**2 - 2 * phi * down_one * up_two + up_two**2, 0.0))
    epsilon = np.sqrt(np.maximum(up_one**2 - 2 * phi * up_one * down_two + down_two**2, 0.0))
    return Interval(value, value - delta, value + epsilon)


def _student(
    difference: FloatArray, both: NDArray[np.bool_], n: FloatArray, level: float
) -> Interval:
    _normal_quantile(level)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = difference.sum(-1) / n
        gap = np.where(both, difference - mean[..., None], 0.0)
        half = stdtrit(n - 1, 0.5 + level / 2) * np.sqrt((gap**2).sum(-1) / (n - 1) / n)
    mean, half = np.where(n > 0, mean, np.nan), np.where(n > 1, half, np.nan)
    return Interval(mean[()], (mean - half)[()], (mean + half)[()])


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"level: {level} is not above 0 and below 1; 0.95 is usual")
    return float(ndtri(0.5 + level / 2))
