"""Item banks of several abilities: their calibration, and models' abilities on them.

p = sigmoid(alpha . gamma - beta) with alpha and gamma of D numbers (Reckase, 2009). With one
ability `mergelib.irt.bank` and `mergelib.irt.ability` do better: they average over ability
instead of taking its mode.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.irt.ability import checked_responses
from mergelib.irt.bank import checked_calibration
from mergelib.irt.items import FloatArray, ItemBank

# Priors: each alpha ~ N(0, 1), which no rotation changes; beta ~ N(m_b, 2^2), m_b ~ N(0, 5^2).
DISCRIMINATION_SD = 1.0
DIFFICULTY_SD = 2.0
DIFFICULTY_MEAN_SD = 5.0

_LARGEST_STEP = 2.0  # of Newton's method, as a length: far from the mode it would overshoot


class Abilities(NamedTuple):
    """Posterior modes of abilities, with the curvature there.

    Attributes:
        mode: (C, D), in standard deviations of the calibration models; the prior's mean for a
            model without responses.
        covariance: (C, D, D) inverse of the negative log posterior's Hessian at the mode.
    """

    mode: FloatArray
    covariance: FloatArray


class MultidimensionalCalibration(NamedTuple):
    """A bank with what else its calibration found.

    Attributes:
        bank: the items' parameters, discrimination (I, D).
        abilities: (models, D) posterior modes; near 0 for a model without responses.
        covariance: (models, D, D) of each model's ability, given the items.
        iterations: sweeps done.
    """

    bank: ItemBank
    abilities: FloatArray
    covariance: FloatArray
    iterations: int


def calibrate_dimensions(
    responses: FloatArray,
    items: Sequence[str],
    dimensions: int,
    *,
    max_iterations: int = 100,
    tolerance: float = 2e-3,
) -> MultidimensionalCalibration:
    """Fit an item bank of several abilities by maximum a posteriori.

    Abilities and item parameters are fitted in turn, each by Newton's steps, under normal priors
    that keep every number finite (Mislevy, 1986): gamma ~ N(0, I), alpha ~ N(0, I), beta as with
    one ability. An item's fit takes each ability as normal around its mode, with the curvature's
    width: at the modes alone (joint maximum a posteriori) discriminations come out a fifth too
    large with 30 items. Unanswered cells are left out.

    Identification: over the calibration models abilities have mean 0 and covariance I, where a
    model's covariance given its responses counts too; axes are principal ones,
    sum_i alpha_i alpha_i' diagonal and falling, and each axis points where most discrimination is
    above 0. A rotation of all abilities changes no probability: it is this convention alone that
    fixes the axes, and axes of nearly equal strength turn from one sample of models to another.

    Standard errors come from the curvature in an item's parameters at the solution, abilities
    held. They leave out what not knowing the abilities costs: little from about 50 responses a
    model for each dimension.

    Args:
        responses: (models, items) of 0, 1 or NaN (not asked, or not scored).
        items: one identifier a column.
        dimensions: D, at least 2, below the number of models and of items.
        max_iterations: limit of sweeps.
        tolerance: it stops when a sweep changes the cells' logits by no more than this, as the root
            of the mean square.

    Raises:
        InputError: as `mergelib.irt.bank.calibrate`, or D is out of its range.
    """
    items = tuple(items)
    right, asked = checked_calibration(responses, items)
    limit = min(right.shape) - 1
    if not 2 <= dimensions <= limit:
        raise InputError(
            f"dimensions: {dimensions} abilities from {right.shape[0]} models and {len(items)} "
            + (f"items; give 2 to {limit}" if limit >= 2 else "items; use `calibrate`, with one")
        )
    alpha, beta, gamma = _start(right, asked, dimensions)
    z = gamma @ alpha.T - beta
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        gamma, spread = _ability_step(gamma, alpha, beta, right, asked)
        alpha, beta, gamma, spread = _standardised(alpha, beta, gamma, spread)
        alpha, beta, _ = _item_step(alpha, beta, gamma, spread, right, asked)
        last, z = z, gamma @ alpha.T - beta
        if float(np.sqrt(np.mean((z - last) ** 2))) <= tolerance:
            break
    gamma, spread = _ability_step(gamma, alpha, beta, right, asked)
    alpha, beta, gamma, spread = _standardised(alpha, beta, gamma, spread)
    covariance = _item_step(alpha, beta, gamma, spread, right, asked)[2]
    errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    bank = ItemBank(items, alpha, beta, errors[:, :-1], errors[:, -1])
    return MultidimensionalCalibration(bank, gamma, spread, iterations)


def maximum_a_posteriori(
    responses: FloatArray,
    bank: ItemBank,
    *,
    mean: FloatArray | None = None,
    covariance: FloatArray | None = None,
    iterations: int = 50,
) -> Abilities:
    """Posterior mode of each model's abilities under a normal prior.

    Args:
        responses: (C, I) of 0, 1 or NaN.
        bank: the items, D > 1.
        mean: (D,) of the prior; 0 by default.
        covariance: (D, D) of the prior, positive definite; I by default.
        iterations: limit of Newton's steps; half a dozen are common.

    Raises:
        InputError: as `mergelib.irt.ability.maximum_a_posteriori`, or the bank has one dimension,
            or the prior does not fit it.
    """
    responses = checked_responses(responses, bank)
    d = bank.dimensions
    if d == 1:
        raise InputError("item bank: one dimension; use `mergelib.irt.ability`")
    mean = np.zeros(d) if mean is None else np.asarray(mean, dtype=np.float64)
    covariance = np.eye(d) if covariance is None else np.asarray(covariance, dtype=np.float64)
    if mean.shape != (d,) or covariance.shape != (d, d):
        raise InputError(
            f"prior: mean {mean.shape} and covariance {covariance.shape} do not fit {d} abilities"
        )
    columns = ~np.isnan(responses).all(axis=0)
    asked = (~np.isnan(responses[:, columns])).astype(np.float64)
    right = np.where(asked > 0, responses[:, columns], 0.0)
    alpha, beta = bank.discrimination[columns], bank.difficulty[columns]
    gamma = np.tile(mean, (len(responses), 1))
    precision = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    limit = np.full((len(responses), 1), _LARGEST_STEP)
    last = np.zeros_like(gamma)
    for _ in range(iterations):
        step, spread = _newton(gamma, alpha, beta, right, asked, mean, precision)
        # A step that turns back went too far before: with sharp items Newton's steps can swing.
        turned = (step * last).sum(1, keepdims=True) < 0
        length = np.linalg.norm(last, axis=1, keepdims=True)
        limit = np.where(turned, np.minimum(limit, length / 2), limit)
        last = _cut(step, limit)
        if float(np.abs(last).max(initial=0.0)) < 1e-9:
            break
        gamma = gamma + last
    return Abilities(gamma, spread)


def _start(
    right: FloatArray, asked: FloatArray, dimensions: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Principal components of the responses, each item's mean taken off."""
    share = (right.sum(0) + 0.5) / (asked.sum(0) + 1.0)
    centred = (right - share) * asked
    u, s, v = np.linalg.svd(centred, full_matrices=False)
    root = np.sqrt(len(right))
    gamma = u[:, :dimensions] * root
    # an item's covariance with ability over its variance is about its slope in logits
    alpha = v[:dimensions].T * s[:dimensions] / root / (share * (1 - share))[:, None]
    return np.clip(alpha, -2.0, 2.0), -np.log(share / (1 - share)), gamma


def _ability_step(
    gamma: FloatArray, alpha: FloatArray, beta: FloatArray, right: FloatArray, asked: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """One step for all models, and the curvature's inverse where it started."""
    d = alpha.shape[1]
    step, covariance = _newton(gamma, alpha, beta, right, asked, np.zeros(d), np.eye(d))
    return gamma + _cut(step, _LARGEST_STEP), covariance


def _item_step(
    alpha: FloatArray,
    beta: FloatArray,
    gamma: FloatArray,
    spread: FloatArray,
    right: FloatArray,
    asked: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One step for all items, and the inverse curvature in (alpha, beta), (I, D + 1, D + 1).

    Each ability counts as normal around its mode. With z ~ N(m, v), E sigmoid(z) is about
    sigmoid(k m) with k = (1 + pi v / 8)^(-1/2) (MacKay, 1992), and Stein's lemma gives the rest.
    """
    count, d = alpha.shape
    b_precision = DIFFICULTY_SD**-2
    centre = b_precision * beta.sum() / (b_precision * count + DIFFICULTY_MEAN_SD**-2)
    mean = np.append(np.zeros(d), centre)
    precision = np.diag(np.append(np.full(d, DISCRIMINATION_SD**-2), b_precision))
    # z = x . w with x = (alpha, beta) and w ~ N((gamma, -1), V), the last number certain
    x = np.column_stack([alpha, beta])
    design = np.column_stack([gamma, np.full(len(gamma), -1.0)])
    uncertain = np.pad(spread, ((0, 0), (0, 1), (0, 1)))
    variance = _squares(x) @ uncertain.reshape(len(gamma), -1).T  # (I, M), v of each cell
    k = 1 / np.sqrt(1 + np.pi / 8 * variance)
    p = expit(k * (x @ design.T))
    weight = asked.T * k * p * (1 - p)  # the mean slope of the logistic curve
    blurred = (weight @ uncertain.reshape(len(gamma), -1)).reshape(count, d + 1, d + 1)
    score = (right.T - asked.T * p) @ design - (x - mean) @ precision
    score = score - (blurred @ x[:, :, None])[:, :, 0]
    curvature = (weight @ _squares(design)).reshape(blurred.shape) + blurred + precision
    step, covariance = _solved(curvature, score)
    x = x + _cut(step, _LARGEST_STEP)
    return x[:, :d], x[:, d], covariance


def _newton(
    gamma: FloatArray,
    alpha: FloatArray,
    beta: FloatArray,
    right: FloatArray,
    asked: FloatArray,
    mean: FloatArray,
    precision: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Newton's step (C, D) in abilities with a normal prior, and the inverse curvature (C, D, D).

    Both are those where the step starts; right and asked are (C, I) of 0 and 1.
    """
    d = gamma.shape[1]
    p = expit(gamma @ alpha.T - beta)
    score = (right - asked * p) @ alpha - (gamma - mean) @ precision
    curvature = ((asked * p * (1 - p)) @ _squares(alpha)).reshape(len(gamma), d, d) + precision
    return _solved(curvature, score)


def _solved(curvature: FloatArray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Curvature^-1 score (R, K), and curvature^-1 (R, K, K)."""
    inverse = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
    return (inverse @ score[:, :, None])[:, :, 0], inverse


def _squares(x: FloatArray) -> FloatArray:
    """Each row's products of two of its numbers, (R, K) -> (R, K^2)."""
    products: FloatArray = (x[:, :, None] * x[:, None, :]).reshape(len(x), x.shape[1] ** 2)
    return products


def _cut(step: FloatArray, limit: FloatArray | float) -> FloatArray:
    """Steps (R, K) no longer than a limit, (R, 1) or one for all."""
    length = np.linalg.norm(step, axis=1, keepdims=True)
    cut: FloatArray = step * np.minimum(1.0, limit / np.maximum(length, 1e-300))
    return cut


def _standardised(
    alpha: FloatArray, beta: FloatArray, gamma: FloatArray, spread: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """The same logits on the scale and the axes that `calibrate_dimensions` says."""
    mean = gamma.mean(0)
    total = np.cov(gamma.T, bias=True) + spread.mean(0)
    root = np.linalg.cholesky(total)
    # gamma = mean + root q g, so alpha . gamma - beta = (alpha root q) . g - (beta - alpha . mean)
    beta = beta - alpha @ mean
    scaled = alpha @ root
    _, q = np.linalg.eigh(scaled.T @ scaled)
    q = q[:, ::-1]
    q = q * np.where((scaled @ q).sum(0) < 0, -1.0, 1.0)
    back = np.linalg.solve(root, np.eye(len(root))).T @ q  # g' = (gamma - mean)' root^-T q
    spread = np.swapaxes(back, 0, 1) @ spread @ back
    return scaled @ q, beta, (gamma - mean) @ back, spread
