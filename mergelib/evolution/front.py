"""The best trade-offs among scored candidates. Every objective is maximised."""

from collections.abc import Sequence

import moocore
import numpy as np
from deap import tools
from numpy.typing import NDArray

from mergelib.evolution.population import Individual


def non_dominated(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find the members of the front: nothing is at least as good everywhere and better somewhere.

    Args:
        scores: (n, k), maximised; a row with NaN is a failed candidate.

    Returns:
        (n,) mask. Equal rows do not dominate each other, so all of them are members or none is: two
        recipes with one score are both worth showing. A row with NaN is never a member and
        dominates nothing.
    """
    valid = _valid(scores)
    mask = np.zeros(len(scores), dtype=np.bool_)
    mask[valid] = moocore.is_nondominated(scores[valid], maximise=True, keep_weakly=True)
    return mask


def hypervolume(scores: NDArray[np.float64], reference: Sequence[float]) -> float:
    """Measure the volume between a reference point and what the scores dominate.

    Args:
        scores: (n, k), maximised; a row with NaN, or not above the reference in every objective,
            adds nothing.
        reference: (k,), the worst score of interest in each objective.

    Returns:
        The volume (Zitzler and Thiele 1998), in the product of the objectives' units; 0 for no row.

    Raises:
        ValueError: `reference` has not k values.
    """
    if len(reference) != scores.shape[1]:
        raise ValueError(f"{len(reference)} reference values for {scores.shape[1]} objectives")
    points = scores[_valid(scores)]
    return float(moocore.hypervolume(points, ref=np.asarray(reference), maximise=True))


def spread(scores: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Pick members of the front that lie far apart.

    The best in each objective are kept as long as `count` allows. Of the others, the one with the
    smallest crowding distance (Deb et al. 2002, section III-B) goes until `count` are left; it is
    measured anew each time, since leaving out one of two neighbours makes the other's room.

    Args:
        scores: (n, k), maximised; rows with NaN and dominated rows are never picked.
        count: how many to pick at most.

    Returns:
        (m,) row numbers, m <= count: the best in objective 1, 2, ... and then the others, the
        loneliest first. Ties go to the lower row number.
    """
    front = [int(row) for row in np.flatnonzero(non_dominated(scores))]
    if not front or count < 1:
        return np.array([], dtype=np.intp)
    extremes = [front[best] for best in np.argmax(scores[front], axis=0)]
    extremes = list(dict.fromkeys(extremes))[:count]
    others = [row for row in front if row not in extremes]
    while len(extremes) + len(others) > count:
        crowding = _crowding(scores, extremes + others)
        others.remove(min(others, key=lambda row: (crowding[row], -row)))
    crowding = _crowding(scores, extremes + others)
    others.sort(key=lambda row: (-crowding[row], row))
    return np.array(extremes + others, dtype=np.intp)


def ranks(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number the fronts: 0 for the first, 1 for what is the first without it, and so on.

    Args:
        scores: (n, k), maximised, without NaN.

    Returns:
        (n,); equal rows have the same rank.
    """
    if scores.shape[1] == 1:  # which moocore refuses
        return np.asarray(np.unique(-scores[:, 0], return_inverse=True)[1], dtype=np.intp)
    return np.asarray(moocore.pareto_rank(scores, maximise=True), dtype=np.intp)


def knee(scores: NDArray[np.float64]) -> int | None:
    """Find the trade-off that gives up least: where the front bulges out furthest.

    The member furthest above the hyperplane through the best in each objective (Das 1999, "On
    characterizing the knee of the Pareto curve based on normal-boundary intersection"), with each
    objective scaled to [0, 1] over the front, so that units do not matter. On a front that curves
    inwards everything else is below the plane, and the knee is one of the best in an objective.
    Where they do not span a plane that falls in every objective, which takes three objectives or
    more, it is the plane of equal sums.

    Args:
        scores: (n, k), maximised; rows with NaN and dominated rows are never the knee.

    Returns:
        The row number, the lowest of equals; None where every row failed.
    """
    front = np.flatnonzero(non_dominated(scores))
    if front.size == 0:
        return None
    points = scores[front]
    worst, best = points.min(axis=0), points.max(axis=0)
    points = (points - worst) / np.where(best > worst, best - worst, 1.0)
    # Of several that are best in an objective, the one that is best in the sum of all.
    extremes = [
        max(np.flatnonzero(column == column.max()), key=lambda row: points[row].sum())
        for column in points.T
    ]
    normal = np.ones(points.shape[1])
    plane = points[extremes]
    if np.linalg.matrix_rank(plane) == len(plane):
        solved = np.linalg.solve(plane, np.ones(len(plane)))
        if (solved > 0.0).all():
            normal = solved
    height = points @ normal
    return int(front[np.flatnonzero(height >= height.max() - 1e-12)[0]])


def _valid(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.flatnonzero(~np.isnan(scores).any(axis=1))


def _crowding(scores: NDArray[np.float64], rows: Sequence[int]) -> dict[int, float]:
    # Sorted, so that among equal scores DEAP's stable sort does not depend on the order of `rows`.
    individuals = {row: Individual([], scores[row].tolist()) for row in sorted(rows)}
    tools.emo.assignCrowdingDist(list(individuals.values()))
    return {row: one.fitness.crowding_dist for row, one in individuals.items()}
