"""The posterior of a model's accuracy where it has several abilities.

A grid of abilities grows with the power of D, so the nodes here are each candidate's own: around
its posterior mode, as wide as the curvature there says (adaptive quadrature: Naylor & Smith, 1982;
Pinheiro & Bates, 1995), quasi-random, and weighted by how the posterior differs from that normal
distribution.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtri

from mergelib.irt.ability import ParentPrior
from mergelib.irt.accuracy import Estimates, Mixture, Seen, mixture_estimates
from mergelib.irt.bank import GRID
from mergelib.irt.items import FloatArray, ItemBank
from mergelib.irt.multidimensional import maximum_a_posteriori

NODES = 256  # for each normal part of a prior
WIDER = 1.4  # than the curvature says: tails that the nodes miss no weights bring back
FLAT_SD = float(GRID[-1]) / 3**0.5  # of the flat prior of one ability


class NormalPart(NamedTuple):
    """One normal part of a prior.

    Attributes:
        weight: its share.
        mean: (D,) abilities.
        sd: in each direction.
    """

    weight: float
    mean: FloatArray
    sd: float


def wide_prior(dimensions: int, sd: float) -> list[NormalPart]:
    """A single normal distribution around 0."""
    return [NormalPart(1.0, np.zeros(dimensions), sd)]


def parent_prior_parts(
    abilities: FloatArray, prior: ParentPrior, bank: ItemBank
) -> list[NormalPart]:
    """The mixture around the endpoints' abilities (J, D); see `ParentPrior`.

    The best endpoint is the one of the highest expected accuracy on the bank's items.
    """
    centre = abilities.mean(axis=0)
    best = abilities[int(bank.probability(abilities).mean(axis=1).argmax())]
    narrow = (1 - prior.wide_weight) / 2
    return [
        NormalPart(narrow, centre, prior.mean_sd),
        NormalPart(narrow, best, prior.best_sd),
        NormalPart(prior.wide_weight, centre, prior.wide_sd),
    ]


def accuracy_posterior(
    responses: FloatArray,
    bank: ItemBank,
    prior: Sequence[NormalPart],
    *,
    value: FloatArray | None = None,
    widening: float = 1.0,
    level: float = 0.95,
) -> Estimates:
    """Mean and quantiles of A, as `mergelib.irt.accuracy.accuracy_posterior` with one ability.

    Args:
        responses: (C, N) of 0, 1 or NaN, checked.
        bank: the N items, D > 1.
        prior: its parts.
        value: (C,) estimates to put the interval around, instead of the posterior mean.
        widening: factor on what not knowing the abilities adds to the interval.
        level: of the interval.

    Returns:
        NaN for a candidate without any response.
    """
    count, total = responses.shape
    asked = ~np.isnan(responses)
    gamma, log_w = posterior_nodes(responses, bank, prior)
    weights = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    weights = np.where(weights > 1e-9, weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    right = np.where(asked, responses, 0.0).sum(axis=1)
    centre, spread = np.zeros_like(weights), np.zeros_like(weights)
    for c in range(count):
        held, unseen = weights[c] > 0, ~asked[c]
        p = expit(gamma[c, held] @ bank.discrimination[unseen].T - bank.difficulty[unseen])
        centre[c, held] = (right[c] + p.sum(axis=1)) / total
        spread[c, held] = np.sqrt((p * (1 - p)).sum(axis=1)) / total
        # parts without weight stand where the others do, so that they widen no pool
        centre[c, ~held] = weights[c] @ centre[c]
    return mixture_estimates(
        Mixture(weights, centre, spread),
        Seen(right, asked.sum(axis=1), total),
        value=value,
        widening=widening,
        level=level,
    )


def posterior_nodes(
    responses: FloatArray, bank: ItemBank, prior: Sequence[NormalPart]
) -> tuple[FloatArray, FloatArray]:
    """Abilities (C, R, D) and the logarithms (C, R) of their weights, up to a factor a row.

    Each part of the prior has nodes of its own, whose mean weight estimates its marginal
    likelihood; so the parts' posterior shares come out with them.
    """
    d = bank.dimensions
    columns = ~np.isnan(responses).all(axis=0)
    asked = (~np.isnan(responses[:, columns])).astype(np.float64)
    right = np.where(asked > 0, responses[:, columns], 0.0)
    alpha, beta = bank.discrimination[columns], bank.difficulty[columns]
    standard = _standard_normal(d)
    gammas, logs = [], []
    for part in prior:
        variance = part.sd**2 * np.eye(d)
        mode, covariance = maximum_a_posteriori(
            responses, bank, mean=part.mean, covariance=variance
        )
        root = WIDER * np.linalg.cholesky(covariance)  # (C, D, D)
        gamma = mode[:, None, :] + standard @ np.swapaxes(root, 1, 2)  # (C, R, D)
        z = gamma @ alpha.T - beta  # (C, R, n)
        log_l = (right[:, None, :] * z - asked[:, None, :] * np.logaddexp(0.0, z)).sum(axis=2)
        gap = (gamma - part.mean) / part.sd
        log_prior = -0.5 * (gap**2).sum(axis=2) - d * np.log(part.sd)
        log_determinant = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        log_proposal = -0.5 * (standard**2).sum(axis=1) - log_determinant[:, None]
        gammas.append(gamma)
        logs.append(np.log(part.weight) + log_l + log_prior - log_proposal)
    return np.concatenate(gammas, axis=1), np.concatenate(logs, axis=1)


@lru_cache(maxsize=8)
def _standard_normal(dimensions: int) -> FloatArray:
    """Nodes (NODES, D) that stand for N(0, I).

    Roberts' additive recurrence, powers of the generalised golden ratio, then the normal quantiles;
    each point with its mirror image, made so that their covariance is I.
    """
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    z = ndtri((0.5 + np.outer(np.arange(1, NODES // 2 + 1), steps)) % 1.0)
    z = np.concatenate([z, -z])
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / NODES)).T
    z.setflags(write=False)
    return np.asarray(z, dtype=np.float64)
