"""The calibration of an item bank with one ability, from the responses of models.

The model is the two-parameter logistic one (Birnbaum, 1968), p = sigmoid(alpha * gamma - beta).
`mergelib.irt.multidimensional` calibrates banks of several abilities.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp

from mergelib.errors import InputError
from mergelib.irt.items import FloatArray, ItemBank, check_items

__all__ = ["GRID", "Calibration", "FloatArray", "ItemBank", "calibrate", "checked_calibration"]

GRID: FloatArray = np.linspace(-6.0, 6.0, 121)
"""Quadrature nodes for ability, in standard deviations of the calibration models."""
GRID.setflags(write=False)

# Weak priors: log alpha ~ N(m_a, .5^2), beta ~ N(m_b, 2^2), and the prior means m_a, m_b are
# learnt with the items, under N(0, 1) and N(0, 5^2).
LOG_DISCRIMINATION_SD = 0.5
DIFFICULTY_SD = 2.0
LOG_DISCRIMINATION_MEAN_SD = 1.0
DIFFICULTY_MEAN_SD = 5.0


class Calibration(NamedTuple):
    """A bank with what else its calibration found.

    Attributes:
        bank: the items' parameters, on the scale where the calibration models have mean 0 and
            variance 1.
        abilities: (models,) posterior means; 0 for a model without responses.
        weights: (Q,) how the calibration models spread over `GRID`: their mean posterior, sum 1.
        log_likelihood: marginal log-likelihood of all responses, in nats, ability ~ N(0, 1).
        iterations: EM iterations done.
    """

    bank: ItemBank
    abilities: FloatArray
    weights: FloatArray
    log_likelihood: float
    iterations: int


class _Parameters(NamedTuple):
    """Item parameters (I,) during the fit: xi = log alpha, beta, and their priors' means."""

    xi: FloatArray
    beta: FloatArray
    xi_mean: float
    beta_mean: float


def calibrate(
    responses: FloatArray,
    items: Sequence[str],
    *,
    max_iterations: int = 300,
    tolerance: float = 1e-8,
) -> Calibration:
    """Fit an item bank by marginal maximum likelihood.

    EM over a quadrature grid (Bock & Aitkin, 1981) with ability ~ N(0, 1), Fisher scoring in the
    M-step, and weak priors on log discrimination and difficulty (Mislevy, 1986), so that items
    that all models got right or wrong, or that few or none answered, keep finite parameters,
    shrunk towards the other items'. Unanswered cells are left out of the likelihood.

    Standard errors come from the expected information of responses and priors at the solution,
    with the abilities spread as their posteriors are. They leave out what not knowing the
    abilities costs: little from about 30 responses a model on.

    Args:
        responses: (models, items) of 0, 1 or NaN (not asked, or not scored).
        items: one identifier a column.
        max_iterations: limit of EM iterations.
        tolerance: EM stops when an iteration changes the penalised log-likelihood by less than
            this, relatively.

    Raises:
        InputError: the shapes do not fit, an identifier occurs twice, a value is not 0, 1 or NaN,
            there are fewer than 2 models, or no response at all.
    """
    items = tuple(items)
    right, asked = checked_calibration(responses, items)
    state = _start(right, asked)
    last, iterations = -np.inf, 0
    while iterations < max_iterations:
        iterations += 1
        posterior, log_likelihood = _e_step(state, right, asked)
        objective = log_likelihood + _log_prior(state)
        if abs(objective - last) <= tolerance * abs(objective):
            break
        last = objective
        # The scale is set from the posterior each time (parameter-expanded EM, Liu, Rubin & Wu,
        # 1998): with many items a model, plain EM finds it only after hundreds of iterations.
        state = _rescaled(_m_step(state, posterior, right, asked), posterior.mean(0))
    state = _standardised(state, right, asked)
    posterior, log_likelihood = _e_step(state, right, asked)
    xi_se, beta_se = _standard_errors(state, posterior, asked)
    alpha = np.exp(state.xi)
    # d alpha = alpha d xi (delta method).
    bank = ItemBank(items, alpha, state.beta, alpha * xi_se, beta_se)
    return Calibration(bank, posterior @ GRID, posterior.mean(0), log_likelihood, iterations)


_LOG_NORMAL: FloatArray = -0.5 * GRID**2 - float(logsumexp(-0.5 * GRID**2))


def _start(right: FloatArray, asked: FloatArray) -> _Parameters:
    share = (right.sum(0) + 0.5) / (asked.sum(0) + 1.0)
    beta = -np.log(share / (1 - share))
    return _Parameters(np.zeros_like(beta), beta, 0.0, float(beta.mean()))


def _e_step(state: _Parameters, right: FloatArray, asked: FloatArray) -> tuple[FloatArray, float]:
    """Posterior of each model over the grid (models, Q), and the marginal log-likelihood."""
    alpha = np.exp(state.xi)
    z = np.outer(GRID, alpha) - state.beta  # (Q, I)
    # log p^y (1 - p)^(1 - y) = y z - log(1 + e^z), and sum_i y_i z_i is a line in gamma
    log_right = np.outer(right @ alpha, GRID) - (right @ state.beta)[:, None]
    log_joint = log_right - asked @ np.logaddexp(0.0, z).T + _LOG_NORMAL
    log_marginal = logsumexp(log_joint, axis=1, keepdims=True)
    return np.exp(log_joint - log_marginal), float(log_marginal.sum())


def _m_step(
    state: _Parameters, posterior: FloatArray, right: FloatArray, asked: FloatArray
) -> _Parameters:
    """Two Fisher scoring steps in (xi, beta) for all items at once, then the priors' means."""
    r, n = posterior.T @ right, posterior.T @ asked  # (Q, I) expected right and asked
    xi, beta = state.xi, state.beta
    for _ in range(2):
        step_xi, step_beta = _scoring_step(state._replace(xi=xi, beta=beta), r, n)
        xi = xi + np.clip(step_xi, -0.7, 0.7)
        beta = beta + np.clip(step_beta, -2.0, 2.0)
    a_precision, b_precision = LOG_DISCRIMINATION_SD**-2, DIFFICULTY_SD**-2
    xi_mean = a_precision * xi.sum() / (a_precision * len(xi) + LOG_DISCRIMINATION_MEAN_SD**-2)
    beta_mean = b_precision * beta.sum() / (b_precision * len(xi) + DIFFICULTY_MEAN_SD**-2)
    return _Parameters(xi, beta, float(xi_mean), float(beta_mean))


def _scoring_step(
    state: _Parameters, r: FloatArray, n: FloatArray
) -> tuple[FloatArray, FloatArray]:
    gap = r - n * expit(np.outer(GRID, np.exp(state.xi)) - state.beta)
    slope = np.exp(state.xi) * (GRID @ gap)  # of the log-likelihood in xi
    score_xi = slope - (state.xi - state.xi_mean) / LOG_DISCRIMINATION_SD**2
    score_beta = -gap.sum(0) - (state.beta - state.beta_mean) / DIFFICULTY_SD**2
    xx, bb, xb = _information(state, n)
    # Where the data ask for a negative alpha the observed curvature is above the expected one,
    # and steps by the latter would swing to and fro.
    xx = xx + np.maximum(-slope, 0.0)
    determinant = xx * bb - xb**2
    return (
        (bb * score_xi - xb * score_beta) / determinant,
        (xx * score_beta - xb * score_xi) / determinant,
    )


def _information(state: _Parameters, n: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Expected information about (xi, beta), priors included: its xx, bb and xb entries, (I,)."""
    alpha = np.exp(state.xi)
    p = expit(np.outer(GRID, alpha) - state.beta)
    w = n * p * (1 - p)
    xx = alpha**2 * (GRID**2 @ w) + LOG_DISCRIMINATION_SD**-2
    return xx, w.sum(0) + DIFFICULTY_SD**-2, -alpha * (GRID @ w)


def _standard_errors(
    state: _Parameters, posterior: FloatArray, asked: FloatArray
) -> tuple[FloatArray, FloatArray]:
    xx, bb, xb = _information(state, posterior.T @ asked)
    determinant = xx * bb - xb**2
    return np.sqrt(bb / determinant), np.sqrt(xx / determinant)


def _log_prior(state: _Parameters) -> float:
    return -0.5 * float(
        np.sum((state.xi - state.xi_mean) ** 2) / LOG_DISCRIMINATION_SD**2
        + np.sum((state.beta - state.beta_mean) ** 2) / DIFFICULTY_SD**2
        + state.xi_mean**2 / LOG_DISCRIMINATION_MEAN_SD**2
        + state.beta_mean**2 / DIFFICULTY_MEAN_SD**2
    )


def _rescaled(state: _Parameters, w: FloatArray) -> _Parameters:
    """The same curves with the models' mean posterior (Q,) brought to mean 0 and variance 1."""
    mean = float(w @ GRID)
    sd = float(np.sqrt(w @ (GRID - mean) ** 2))
    # gamma = mean + sd gamma' turns alpha gamma - beta into (alpha sd) gamma' - (beta - alpha mean)
    beta = state.beta - np.exp(state.xi) * mean
    return state._replace(xi=state.xi + np.log(sd), beta=beta)


def _standardised(state: _Parameters, right: FloatArray, asked: FloatArray) -> _Parameters:
    """Rescale until the models' mean posterior has mean 0 and variance 1."""
    for _ in range(100):
        w = _e_step(state, right, asked)[0].mean(0)
        if abs(w @ GRID) < 1e-9 and abs(w @ GRID**2 - 1) < 1e-9:
            break
        state = _rescaled(state, w)
    return state


def checked_calibration(
    responses: FloatArray, items: tuple[str, ...]
) -> tuple[FloatArray, FloatArray]:
    """The right answers and the asked cells, both (models, items) of 0 and 1.

    Args:
        responses: (models, items) of 0, 1 or NaN.
        items: one identifier a column.

    Raises:
        InputError: as `calibrate`.
    """
    responses = np.asarray(responses, dtype=np.float64)
    if responses.ndim != 2 or responses.shape[1] != len(items):
        raise InputError(
            f"responses: shape {responses.shape} does not fit {len(items)} items; "
            "give one row a model and one column an item"
        )
    if responses.shape[0] < 2:
        raise InputError(f"responses: {responses.shape[0]} models; calibration needs at least 2")
    check_items(items)
    asked = ~np.isnan(responses)
    bad = asked & (responses != 0) & (responses != 1)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"responses: {responses[row, column]} for item {items[column]!r} in row {row}; "
            "allowed are 0, 1 and NaN (not asked): binarise other scores first"
        )
    if not asked.any():
        raise InputError(
            f"responses: every cell of {responses.shape[0]} models x {len(items)} items is NaN; "
            "calibration needs responses"
        )
    return np.where(asked, responses, 0.0), asked.astype(np.float64)
