"""Maximum likelihood abilities where a model has several, and abilities in the endpoints' span."""

import numpy as np
from scipy.special import expit

from mergelib.irt import ability
from mergelib.irt.bank import GRID
from mergelib.irt.items import FloatArray, ItemBank

LIMIT = float(GRID[-1])
"""Each ability is bounded as the only one is with one dimension."""

_ITERATIONS = 100
_HALVINGS = 40
_ARMIJO = 1e-4  # share of the promised gain that a step must bring (Bertsekas, 1982)
_RIDGE = 1e-9  # fewer responses than dimensions leave directions in which nothing changes


def maximum_likelihood(
    responses: FloatArray, discrimination: FloatArray, difficulty: FloatArray
) -> FloatArray:
    """Maximum likelihood abilities, each within `LIMIT` of 0.

    The log-likelihood is concave: projected Newton's method (Bertsekas, 1982) from 0. All right or
    all wrong has no finite maximum, and ends at bounds. Of equally likely abilities, which there
    are with fewer responses than dimensions, it is those that Newton's steps from 0 reach.

    Args:
        responses: (C, I) of 0, 1 or NaN, checked.
        discrimination: (I, D), D from 1 on.
        difficulty: (I,).

    Returns:
        (C, D); NaN for a model without responses.
    """
    columns = ~np.isnan(responses).all(axis=0)
    alpha, beta = discrimination[columns], difficulty[columns]
    asked = (~np.isnan(responses[:, columns])).astype(np.float64)
    right = np.where(asked > 0, responses[:, columns], 0.0)
    count, d = len(responses), alpha.shape[1]
    squares = (alpha[:, :, None] * alpha[:, None, :]).reshape(-1, d * d)
    eye = np.eye(d)

    def log_likelihood(gamma: FloatArray) -> FloatArray:
        z = gamma @ alpha.T - beta
        total: FloatArray = (right * z - asked * np.logaddexp(0.0, z)).sum(1)
        return total

    gamma = np.zeros((count, d))
    value = log_likelihood(gamma)
    for _ in range(_ITERATIONS):
        p = expit(gamma @ alpha.T - beta)
        score = (right - asked * p) @ alpha
        held = (np.abs(gamma) >= LIMIT) & (gamma * score > 0)
        score = np.where(held, 0.0, score)
        curvature = ((asked * p * (1 - p)) @ squares).reshape(count, d, d) + _RIDGE * eye
        curvature = np.where(held[:, :, None] | held[:, None, :], eye, curvature)
        step = np.linalg.solve(curvature, score[:, :, None])[:, :, 0]
        length, found, gain = np.ones((count, 1)), gamma, value
        for _ in range(_HALVINGS):
            found = np.clip(gamma + length * step, -LIMIT, LIMIT)
            gain = log_likelihood(found)
            enough = gain >= value + _ARMIJO * (score * (found - gamma)).sum(1) - 1e-12
            if enough.all():
                break
            length = np.where(enough[:, None], length, length / 2)
        moved = np.abs(found - gamma).max(initial=0.0)
        gamma, value = found, gain
        if moved < 1e-10:
            break
    gamma[~asked.any(axis=1)] = np.nan
    return gamma


def likeliest(responses: FloatArray, bank: ItemBank) -> FloatArray:
    """Maximum likelihood abilities with as many dimensions as the bank has.

    Args:
        responses: (C, I) of 0, 1 or NaN.
        bank: the items.

    Returns:
        (C,) with one dimension, else (C, D); NaN for a model without responses.

    Raises:
        InputError: the shape does not fit the bank, or a value is not 0, 1 or NaN.
    """
    if bank.dimensions == 1:
        return ability.maximum_likelihood(responses, bank)
    responses = ability.checked_responses(responses, bank)
    return maximum_likelihood(responses, bank.discrimination, bank.difficulty)


def spanned_maximum_likelihood(
    responses: FloatArray, discrimination: FloatArray, difficulty: FloatArray, span: FloatArray
) -> FloatArray:
    """Maximum likelihood among the linear combinations of some models' abilities.

    Each coordinate in an orthonormal basis of the span is within `LIMIT` of 0. Where they span all
    dimensions the basis is that of the abilities themselves, and this `maximum_likelihood`.

    Args:
        responses: (C, I) of 0, 1 or NaN, checked.
        discrimination: (I, D).
        difficulty: (I,).
        span: (J, D) abilities.

    Returns:
        (C, D); NaN for a model without responses, 0 where the span is 0 alone.
    """
    d = discrimination.shape[1]
    _, s, v = np.linalg.svd(span, full_matrices=False)
    rank = rank_of(s)
    basis = np.eye(d) if rank == d else v[:rank]  # (R, D)
    if rank == 0:
        nothing = np.isnan(responses).all(axis=1, keepdims=True)
        return np.where(nothing, np.nan, np.zeros((len(responses), d)))
    reduced: FloatArray = (
        maximum_likelihood(responses, discrimination @ basis.T, difficulty) @ basis
    )
    return reduced


def rank_of(singular_values: FloatArray) -> int:
    """How many singular values, falling, are not 0 up to rounding."""
    largest = float(singular_values.max(initial=0.0))
    return int((singular_values > 1e-9 * max(largest, 1e-300)).sum()) if largest > 1e-12 else 0
