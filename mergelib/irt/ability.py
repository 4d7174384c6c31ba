"""The abilities of many models at once, from their responses to some items of a bank.

Responses are (C, I) of 0, 1 or NaN (not asked, or not scored); I is the bank's number of items.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logsumexp

from mergelib.errors import InputError
from mergelib.irt.bank import GRID, FloatArray, ItemBank
from mergelib.irt.shift import NO_SHIFT, Shift


@dataclass(frozen=True)
class ParentPrior:
    """Where the abilities of merges lie: a mixture of normals around their endpoints' abilities.

    Attributes:
        mean_sd: of the normal around the endpoints' mean ability.
        best_sd: of the one around the best endpoint's.
        wide_sd: of the wide one around the mean, which lets the data win.
        wide_weight: its weight; the other two share the rest evenly.
    """

    mean_sd: float = 0.3
    best_sd: float = 0.3
    wide_sd: float = 2.0
    wide_weight: float = 0.2

    def __post_init__(self) -> None:
        if min(self.mean_sd, self.best_sd, self.wide_sd) <= 0 or not 0 < self.wide_weight <= 1:
            raise InputError(f"{self}: widths must be above 0, the wide weight in (0, 1]")


def log_likelihood_grid(
    responses: FloatArray, bank: ItemBank, grid: FloatArray = GRID, shift: Shift = NO_SHIFT
) -> FloatArray:
    """Log-likelihood of each model's responses at each ability of a grid.

    With a shift its part that ability leaves open is integrated out.

    Args:
        responses: (C, I) of 0, 1 or NaN.
        bank: the items.
        grid: (Q,) abilities.
        shift: the second trait.

    Returns:
        (C, Q) natural logarithms; 0 for a model without responses.

    Raises:
        InputError: the shape does not fit the bank, or a value is not 0, 1 or NaN.
    """
    responses = checked_responses(responses, bank)
    columns = np.any(~np.isnan(responses), axis=0)  # a few dozen of a thousand, in a search
    y = responses[:, columns]
    asked = ~np.isnan(y)
    z = shift.logits(bank, grid, columns)  # (I, Q K)
    # log p^y (1 - p)^(1 - y) = y z - log(1 + e^z)
    log_l: FloatArray = np.where(asked, y, 0.0) @ z - asked.astype(np.float64) @ np.logaddexp(0, z)
    parts = log_l.reshape(len(y), len(grid), len(shift.nodes)) + np.log(shift.shares)
    marginal: FloatArray = logsumexp(parts, axis=2)
    return marginal


def posterior(
    responses: FloatArray,
    bank: ItemBank,
    prior: FloatArray,
    grid: FloatArray = GRID,
    shift: Shift = NO_SHIFT,
) -> FloatArray:
    """Posterior weights of each model's ability over a grid.

    Args:
        responses: (C, I) of 0, 1 or NaN.
        bank: the items.
        prior: (Q,) or (C, Q) weights, not negative, sum above 0.
        grid: (Q,) abilities.
        shift: the second trait, integrated out.

    Returns:
        (C, Q) weights, each row's sum 1; the prior for a model without responses.

    Raises:
        InputError: as `log_likelihood_grid`, or the prior is no distribution over the grid.
    """
    prior = np.asarray(prior, dtype=np.float64)
    if prior.shape[-1:] != grid.shape or not np.all(prior >= 0) or not np.all(prior.sum(-1) > 0):
        raise InputError(
            f"prior: shape {prior.shape} or values do not fit the grid of {grid.size}; "
            "give weights that are not negative, one a node"
        )
    with np.errstate(divide="ignore"):
        log_joint = log_likelihood_grid(responses, bank, grid, shift) + np.log(prior)
    weights: FloatArray = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
    return weights


def posterior_mean(weights: FloatArray, grid: FloatArray = GRID) -> FloatArray:
    """Mean ability (C,) under posterior weights (C, Q) over a grid (Q,)."""
    mean: FloatArray = weights @ grid
    return mean


def gaussian_weights(mean: float, sd: float, grid: FloatArray = GRID) -> FloatArray:
    """Weights (Q,), sum 1, of a normal distribution cut to a grid.

    Args:
        mean: its mean, in units of ability.
        sd: its standard deviation, above 0.
        grid: (Q,) abilities.
    """
    log_w = -0.5 * ((grid - mean) / sd) ** 2
    weights: FloatArray = np.exp(log_w - logsumexp(log_w))
    return weights


def parent_prior_weights(abilities: FloatArray, prior: ParentPrior) -> FloatArray:
    """Weights (Q,), sum 1, over `GRID` of the mixture around the endpoints' abilities (J,)."""
    centre, best = float(np.mean(abilities)), float(np.max(abilities))
    narrow = (1 - prior.wide_weight) / 2
    parts = [
        narrow * gaussian_weights(centre, prior.mean_sd),
        narrow * gaussian_weights(best, prior.best_sd),
        prior.wide_weight * gaussian_weights(centre, prior.wide_sd),
    ]
    weights: FloatArray = np.stack(parts).sum(0)
    return weights


def maximum_likelihood(responses: FloatArray, bank: ItemBank) -> FloatArray:
    """Maximum likelihood ability of each model, bounded to the range of `GRID`.

    The log-likelihood is concave because discriminations are above 0. All right or all wrong has
    no finite maximum: the bound is returned.

    Args:
        responses: (C, I) of 0, 1 or NaN.
        bank: the items.

    Returns:
        (C,) abilities; NaN for a model without responses.

    Raises:
        InputError: as `log_likelihood_grid`.
    """
    responses = checked_responses(responses, bank)
    ability = _maximum(responses, bank, mean=0.0, precision=0.0)
    ability[np.isnan(responses).all(axis=1)] = np.nan
    return ability


def maximum_a_posteriori(
    responses: FloatArray, bank: ItemBank, *, mean: float = 0.0, sd: float = 1.0
) -> FloatArray:
    """Posterior mode of each model's ability under a normal prior, bounded to `GRID`'s range.

    Args:
        responses: (C, I) of 0, 1 or NaN.
        bank: the items.
        mean: the prior's mean.
        sd: the prior's standard deviation, above 0.

    Returns:
        (C,) abilities; the prior's mean for a model without responses.

    Raises:
        InputError: as `log_likelihood_grid`.
    """
    return _maximum(checked_responses(responses, bank), bank, mean=mean, precision=sd**-2)


def _maximum(responses: FloatArray, bank: ItemBank, *, mean: float, precision: float) -> FloatArray:
    """Root of the score, which falls with ability: Newton's method kept inside a bracket."""
    columns = ~np.isnan(responses).all(axis=0)
    alpha, beta = bank.discrimination[columns], bank.difficulty[columns]
    asked = ~np.isnan(responses[:, columns])
    y = np.where(asked, responses[:, columns], 0.0)
    weight = asked * alpha  # (C, n)

    def score(gamma: FloatArray) -> tuple[FloatArray, FloatArray]:
        p = expit(np.outer(gamma, alpha) - beta)
        slope = (weight * p * (1 - p)) @ alpha + precision
        return (weight * (y - p)).sum(1) - precision * (gamma - mean), slope

    count = responses.shape[0]
    low, high = np.full(count, GRID[0]), np.full(count, GRID[-1])
    gamma = np.full(count, np.clip(mean, GRID[0], GRID[-1]))
    below, above = score(low)[0] <= 0, score(high)[0] >= 0
    for _ in range(60):
        value, slope = score(gamma)
        low, high = np.where(value > 0, gamma, low), np.where(value > 0, high, gamma)
        newton = gamma + value / np.maximum(slope, 1e-300)
        inside = (newton > low) & (newton < high)
        following = np.where(inside, newton, 0.5 * (low + high))
        moved = np.abs(following - gamma)
        gamma = following
        if np.all(moved < 1e-10):
            break
    gamma = np.where(below, GRID[0], np.where(above, GRID[-1], gamma))
    return np.asarray(gamma, dtype=np.float64)


def checked_responses(responses: FloatArray, bank: ItemBank) -> FloatArray:
    """Return responses as (C, I) float64, having checked shape and values.

    Raises:
        InputError: the shape does not fit the bank, or a value is not 0, 1 or NaN.
    """
    responses = np.asarray(responses, dtype=np.float64)
    if responses.ndim != 2 or responses.shape[1] != len(bank):
        raise InputError(
            f"responses: shape {responses.shape} does not fit a bank of {len(bank)} items; "
            "give one row a model and one column an item, NaN where it was not asked"
        )
    bad = ~np.isnan(responses) & (responses != 0) & (responses != 1)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"responses: {responses[row, column]} for item {bank.items[column]!r} in row {row}; "
            "item response models take 0, 1 and NaN: binarise other scores, or use estimator mean"
        )
    return responses
