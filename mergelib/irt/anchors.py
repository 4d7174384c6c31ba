"""Anchor items: the few that stand for all (clustered), or that tell siblings apart (informative).

Arrays in, indices out; `mergelib.irt.selection` has the strategies that a search names.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from mergelib.errors import InputError
from mergelib.irt.ability import gaussian_weights, posterior
from mergelib.irt.bank import GRID, FloatArray, ItemBank
from mergelib.irt.multidimensional import maximum_a_posteriori

IntArray = NDArray[np.int64]

RESTARTS = 10
RIDGE = 0.1
WINDOW = 0.08  # in accuracy, around the siblings' level
FEWEST_MODELS = 60


class Anchors(NamedTuple):
    """Items and what share of all items each stands for.

    Attributes:
        items: (n,) indices, all different.
        weights: (n,) shares, sum 1; 0 for the anchor of a cluster that holds no item.
    """

    items: IntArray
    weights: FloatArray


def clustered_anchors(
    bank: ItemBank, n: int, pool: IntArray, random: np.random.Generator
) -> Anchors:
    """Items near the centres of n clusters of (alpha, beta): tinyBenchmarks' anchor points.

    K-means (Lloyd, 1982; k-means++ starts, Arthur & Vassilvitskii, 2007; the best of ten) on all
    the bank's items; an anchor's weight is its cluster's share of them (Maia Polo et al., 2024).
    Anchors are assigned to centres so that none serves two, at the least sum of squared distances.

    Args:
        bank: all N items.
        n: how many, up to the pool's size.
        pool: (K,) indices of the items that may be anchors.
        random: the only source of chance.
    """
    points = np.column_stack([bank.discrimination, bank.difficulty])  # (N, D + 1)
    best, centres, labels = np.inf, points[:n], np.zeros(len(points), dtype=np.int64)
    for _ in range(RESTARTS):
        start = _spread(points, n, random)
        with warnings.catch_warnings():  # an empty cluster keeps its centre, with weight 0
            warnings.simplefilter("ignore", UserWarning)
            found, of = kmeans2(points, start, iter=30, minit="matrix", missing="warn")
        inertia = float(((points - found[of]) ** 2).sum())
        if inertia < best:
            best, centres, labels = inertia, found, of
    row, column = linear_sum_assignment(cdist(centres, points[pool], "sqeuclidean"))
    weights = np.bincount(labels, minlength=n) / len(points)
    return Anchors(pool[column], weights[row])


def _spread(points: FloatArray, n: int, random: np.random.Generator) -> FloatArray:
    """K-means++: each further centre drawn by its squared distance to the nearest one so far."""
    chosen = [int(random.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < n:
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
        total = nearest.sum()
        share = nearest / total if total > 0 else np.full(len(points), 1 / len(points))
        chosen.append(int(random.choice(len(points), p=share)))
    return points[chosen]


def informative_items(
    responses: FloatArray, n: int, pool: IntArray, *, ridge: float = RIDGE
) -> IntArray:
    """Items whose responses together best predict the models' accuracy, chosen greedily.

    Each step takes the item that lowers most the residual variance of accuracy, the mean over all
    N items, in the linear regression on the items chosen so far, with a ridge on their covariance
    (forward selection by pivoted Cholesky).

    Args:
        responses: (models, N) of scores or probabilities, no NaN; at least 2 models.
        n: how many, up to the pool's size.
        pool: (K,) indices of the items that may be chosen; the earlier wins a tie.
        ridge: added to each item's variance.

    Returns:
        (n,) of the pool's indices, the most informative first: the first k are the choice of k.
    """
    centred = responses - responses.mean(0)
    scale = len(responses) - 1
    among = centred[:, pool]
    # r: each item's covariance with accuracy, given the items chosen; v: its variance, given them
    r = among.T @ centred.mean(1) / scale
    v = (among**2).sum(0) / scale + ridge
    columns = np.empty((n, pool.size))  # of the covariance's Cholesky factor
    chosen: list[int] = []
    for step in range(n):
        gain = r**2 / v
        gain[chosen] = -1.0
        j = int(np.argmax(gain >= gain.max() * (1 - 1e-9)))  # rounding decides no tie
        covariance = among.T @ among[:, j] / scale
        covariance[j] += ridge
        covariance -= columns[:step].T @ columns[:step, j]
        columns[step] = covariance / np.sqrt(v[j])
        r = r - columns[step] * (r[j] / np.sqrt(v[j]))
        v = np.maximum(v - columns[step] ** 2, 1e-12)
        chosen.append(j)
    return pool[chosen]


def filled(responses: FloatArray, bank: ItemBank) -> FloatArray:
    """Complete responses: unseen cells hold the bank's probability, given the model's others.

    Args:
        responses: (models, N) of 0, 1 or NaN.
        bank: the items; abilities are averaged over the posterior with one dimension, at its mode
            with several.

    Returns:
        (M, N) of the models that have a response, in their order.

    Raises:
        InputError: the responses do not fit the bank.
    """
    responses = responses[~np.isnan(responses).all(axis=1)]
    if bank.dimensions == 1:
        weights = posterior(responses, bank, gaussian_weights(0.0, 1.0))
        expected = weights @ bank.probability(GRID)
    else:
        expected = bank.probability(maximum_a_posteriori(responses, bank).mode)
    return np.where(np.isnan(responses), expected, responses)


def near_level(
    responses: FloatArray, level: float, *, window: float = WINDOW, fewest: int = FEWEST_MODELS
) -> FloatArray:
    """The models whose accuracy is near a level.

    Args:
        responses: (models, N), no NaN.
        level: an accuracy in [0, 1].
        window: models within this of the level are near; it is widened until there are enough.
        fewest: models that are enough; where there are not so many, all are taken.

    Returns:
        (near models, N), a part of the rows.

    Raises:
        InputError: there are fewer than 2 models.
    """
    if len(responses) < 2:
        raise InputError(
            "selection: 'informative' needs the responses of at least 2 calibration models, not "
            f"{len(responses)}; use 'systematic'"
        )
    distance = np.abs(responses.mean(1) - level)
    enough = np.sort(distance)[min(fewest, len(responses)) - 1]
    near: FloatArray = responses[distance <= max(window, float(enough))]
    return near
