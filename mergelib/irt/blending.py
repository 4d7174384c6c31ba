"""gp-IRT's constants: how far its item response model is to be trusted against the plain mean."""

from typing import NamedTuple

import numpy as np

from mergelib.errors import InputError
from mergelib.irt.dimension import bank_of_dimensions
from mergelib.irt.items import FloatArray
from mergelib.irt.multidimensional_ability import likeliest


class GpIrtConstants(NamedTuple):
    """What gp-IRT's constant is made of (Maia Polo et al., 2024).

    Attributes:
        validation_error: b, mean absolute error of the item response model's accuracy on unseen
            items, over validation models; a share.
        item_variance: v, mean over models of the variance of a model's responses over items.
    """

    validation_error: float
    item_variance: float


def gp_irt_constants(responses: FloatArray, dimensions: int = 1) -> GpIrtConstants:
    """The constants b and v of gp-IRT from calibration responses, as tinyBenchmarks' tutorial.

    Every fifth model is held out of a calibration; its ability comes from every second item, and
    its mean over the others is predicted from that alone.

    Args:
        responses: (models, N) of 0, 1 or NaN, at least 3 models and 2 items.
        dimensions: D of the calibration.

    Raises:
        InputError: too few models or items, or no held-out model has responses to both halves.
    """
    responses = np.asarray(responses, dtype=np.float64)
    if responses.ndim != 2 or responses.shape[0] < 3 or responses.shape[1] < 2:
        raise InputError(
            f"gp_irt: constants from responses of shape {responses.shape}; "
            "give at least 3 models and 2 items"
        )
    held = np.arange(len(responses)) % 5 == 0
    items = [str(i) for i in range(responses.shape[1])]
    bank = bank_of_dimensions(responses[~held], items, dimensions)
    seen, unseen = responses[held].copy(), responses[held].copy()
    seen[:, 1::2], unseen[:, ::2] = np.nan, np.nan
    predicted = bank.probability(likeliest(seen, bank))
    asked = ~np.isnan(unseen)
    count = asked.sum(1)
    with np.errstate(invalid="ignore"):
        gap = np.where(asked, predicted - unseen, 0.0).sum(1) / np.where(count > 0, count, np.nan)
    if np.all(np.isnan(gap)):
        raise InputError("gp_irt: no held-out model answered both even and odd items")
    variance = np.nanvar(responses[~np.isnan(responses).all(1)], axis=1)
    return GpIrtConstants(float(np.nanmean(np.abs(gap))), float(variance.mean()))
