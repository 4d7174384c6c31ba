"""The Rasch model (1960), fitted to few responses of many models to many items.

p = sigmoid(theta - b), one discrimination for all items. Abilities and difficulties are taken at
their joint posterior mode, which costs time in proportion to the responses and not to models times
items: a search can do it after every generation, where the two-parameter model, which may know more
of the items (docs/evolving.md), takes many times longer.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from mergelib.irt.anchors import IntArray
from mergelib.irt.bank import checked_calibration
from mergelib.irt.items import FloatArray, ItemBank

ABILITY_SD = 2.0
"""Of the normal prior on abilities around their mean, in logits."""

DIFFICULTY_SD = 2.0
"""Of the normal prior on difficulties around their mean, in logits."""

_STEPS = 30
_LONGEST = 1.0  # step, in logits
_FEWEST_LOGITS = 0.3  # a standard deviation of abilities is taken to be at least this


def calibrate_rasch(responses: FloatArray, items: Sequence[str]) -> ItemBank:
    """Fit an item bank whose items all discriminate alike.

    By turns a Newton step for all abilities and one for all difficulties.

    Args:
        responses: (models, items) of 0, 1 or NaN (not asked, or not scored).
        items: one identifier a column.

    Returns:
        The bank, on the scale where the models' abilities have mean 0 and variance 1. Standard
        errors of difficulties hold the abilities for known; those of discriminations are NaN.

    Raises:
        InputError: as `mergelib.irt.bank.calibrate`.
    """
    items = tuple(items)
    right, asked = checked_calibration(responses, items)
    model, item = np.nonzero(asked)
    y = right[model, item]
    count, total = asked.shape
    theta, b = np.zeros(count), np.zeros(total)

    def newton(
        value: FloatArray, index: IntArray, sign: float, sd: float
    ) -> tuple[FloatArray, FloatArray]:
        p = expit(theta[model] - b[item])
        seen: FloatArray = np.bincount(index, p * (1 - p), len(value)).astype(np.float64)
        information: FloatArray = seen + 1 / sd**2
        slope = sign * np.bincount(index, y - p, len(value)) - (value - value.mean()) / sd**2
        stepped: FloatArray = value + np.clip(slope / information, -_LONGEST, _LONGEST)
        return stepped, information

    for _ in range(_STEPS):
        theta, _ = newton(theta, model, 1.0, ABILITY_SD)
        b, information = newton(b, item, -1.0, DIFFICULTY_SD)
    scale = max(float(theta.std()), _FEWEST_LOGITS)
    unknown = np.full(total, np.nan)
    return ItemBank(items, np.full(total, scale), b - theta.mean(), unknown, information**-0.5)
