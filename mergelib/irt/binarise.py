"""Scores between 0 and 1 made into right and wrong, for item response models."""

import numpy as np

from mergelib.errors import InputError
from mergelib.irt.bank import FloatArray


def threshold(scores: FloatArray) -> float:
    """The c at which the mean of (score > c) is closest to the mean score.

    As in tinyBenchmarks (Maia Polo et al., 2024): right is a score above one c for all items, so
    chosen that the calibration models' accuracy stays what their mean score was.

    Args:
        scores: of the calibration models, any shape, in [0, 1] or NaN (not asked).

    Returns:
        c in (0, 1), halfway between two values that occur, so that rounding turns no score; of
        equally close ones the lowest. 0.5 for scores that are all 0 or 1, which it leaves alone.

    Raises:
        InputError: a score outside [0, 1], or no score at all.
    """
    y = _checked(scores)
    y = np.sort(y[~np.isnan(y)])
    if y.size == 0:
        raise InputError("scores: every one is NaN; a threshold needs scores")
    edges = np.unique(np.concatenate([[0.0, 1.0], y]))
    cuts = (edges[1:] + edges[:-1]) / 2
    share = 1 - np.searchsorted(y, cuts, side="right") / y.size  # mean(Y > c)
    # Rounding decides no tie.
    return float(cuts[np.argmin(np.round(np.abs(share - y.mean()), 12))])


def binarised(scores: FloatArray, c: float) -> FloatArray:
    """1 where a score is above c, else 0; NaN stays NaN.

    Args:
        scores: any shape, in [0, 1] or NaN.
        c: from `threshold`, of the calibration models' scores.

    Raises:
        InputError: a score outside [0, 1].
    """
    y = _checked(scores)
    return np.where(np.isnan(y), np.nan, (y > c).astype(np.float64))


def _checked(scores: FloatArray) -> FloatArray:
    y = np.asarray(scores, dtype=np.float64)
    bad = ~np.isnan(y) & ~((y >= 0) & (y <= 1))
    if bad.any():
        raise InputError(f"scores: {y[bad].flat[0]:g} is outside 0 to 1, so it cannot be binarised")
    return y
