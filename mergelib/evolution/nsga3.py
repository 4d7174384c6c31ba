"""NSGA-III for several objectives (Deb and Jain 2014), on parts of DEAP's `selNSGA3`.

Reference points, extreme points, intercepts and association are DEAP's. Its selection as a whole is
not used: it draws from numpy's global generator, and it scales by the intercepts minus the ideal
point though they are measured from the ideal point already, which is right only where that is 0.
Here scores are measured from the ideal point before they are handed to its parts. The ideal and the
extreme points are those of the pool, not of all generations: under noise the best ever seen is luck
that nothing could take back.
"""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np
from deap.tools import emo
from numpy.typing import NDArray

from mergelib.evolution.front import ranks
from mergelib.evolution.population import Genome, State, begin, design
from mergelib.evolution.randomness import generator
from mergelib.evolution.variation import offspring, parents, rivals, with_parents

CROSSOVER_ETA = 30.0
CROSSOVER_PROBABILITY = 1.0
SMALLEST_SPAN = 1e-6


class Niches(NamedTuple):
    """Which reference line each row is closest to, (n,), and how far it is from it, (n,)."""

    line: NDArray[np.intp]
    distance: NDArray[np.float64]


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    state = begin("nsga3", dimension, population, seed, first)
    return {**state, "parents": [], "fitness": []}


def ask(state: State) -> list[Genome]:
    """Breed the next population from parents taken at random: selection has been done already.

    Returns:
        `population` genomes; a space-filling design as long as no candidate has been scored.
    """
    stock = parents(state)
    if not stock:
        return design(state)
    rng = generator(state["seed"], state["generation"], "mates")
    # An odd population breeds one child more and drops it. Each parent is taken equally often.
    mates: list[int] = []
    while len(mates) < 2 * -(-state["population"] // 2):
        mates.extend(rng.permutation(len(stock)).tolist())
    mates = mates[: 2 * -(-state["population"] // 2)]
    return offspring(
        state,
        [stock[row] for row in mates],
        eta=CROSSOVER_ETA,
        probability=CROSSOVER_PROBABILITY,
    )


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Keep the best fronts of parents and newcomers, the last of them by reference lines.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes.
        fitness: (n, k), maximised; a row with NaN is a failed candidate, which never becomes a
            parent. With fewer scored than the population, the parents are fewer.

    Returns:
        The state of the next generation.
    """
    pool = rivals(state, genomes, fitness, objectives=None)
    if len(pool) <= state["population"]:
        return with_parents(state, pool)
    scores = np.array([one.fitness.values for one in pool])
    rng = generator(state["seed"], state["generation"], "niching")
    return with_parents(state, [pool[row] for row in selected(scores, state["population"], rng)])


def reference_points(objectives: int, population: int) -> NDArray[np.float64]:
    """Lay out Das and Dennis's points on the unit simplex, as many as the population can hold.

    Args:
        objectives: k.
        population: upper limit of their number, as long as the k corners fit.

    Returns:
        (h, k) with h = C(p + k - 1, k - 1) for the largest p that fits, and at least 1.
    """
    if objectives == 1:
        return np.ones((1, 1))
    p = 1
    while comb(p + objectives, objectives - 1) <= population:
        p += 1
    points: NDArray[np.float64] = emo.uniform_reference_points(objectives, p)
    return points


def selected(scores: NDArray[np.float64], count: int, rng: np.random.Generator) -> list[int]:
    """Choose the next parents (Algorithm 1).

    Args:
        scores: (n, k), maximised.
        count: how many to choose, fewer than n.
        rng: for ties between lines and between candidates of one line.

    Returns:
        `count` row numbers: the fronts that fit, then members of the next one, each for a line
        that has fewest; the closest to the line if it has none yet, else any (Algorithm 4).
    """
    rank = ranks(scores)
    last = np.sort(rank)[count - 1]
    sure, front = np.flatnonzero(rank < last), np.flatnonzero(rank == last)
    rows = np.concatenate([sure, front])
    lines = reference_points(scores.shape[1], count)
    niches = associated(scores[rows], rank[rows] == 0, lines)
    taken = np.bincount(niches.line[: len(sure)], minlength=len(lines))
    chosen = sure.tolist()
    waiting: dict[int, list[int]] = {}
    # The closest last, where `pop` takes from, for lines without members; the others at random.
    for place in rng.permutation(np.arange(len(sure), len(rows))).tolist():
        waiting.setdefault(int(niches.line[place]), []).append(place)
    for line, candidates in waiting.items():
        if taken[line] == 0:
            closest = min(candidates, key=lambda place: niches.distance[place])
            candidates.remove(closest)
            candidates.append(closest)
    while len(chosen) < count:
        fewest = min(taken[line] for line in waiting)
        line = int(rng.choice([line for line in waiting if taken[line] == fewest]))
        chosen.append(int(rows[waiting[line].pop()]))
        taken[line] += 1
        if not waiting[line]:
            del waiting[line]
    return chosen


def associated(
    scores: NDArray[np.float64], first_front: NDArray[np.bool_], lines: NDArray[np.float64]
) -> Niches:
    """Scale the scores by ideal point and intercepts and find the closest lines (Algorithms 2, 3).

    Args:
        scores: (n, k), maximised.
        first_front: (n,) mask; intercepts that make no sense give way to its worst scores.
        lines: (h, k), reference points on the unit simplex.

    Returns:
        The line of each row.
    """
    cost = scores.max(axis=0) - scores  # minimised, the ideal point at 0
    ideal = np.zeros(scores.shape[1])
    highest, worst = cost.max(axis=0), cost[first_front].max(axis=0)
    # A front of one, or one that is flat in an objective, gives no scale.
    worst = np.where(worst > SMALLEST_SPAN, worst, np.where(highest > 0.0, highest, 1.0))
    extremes = emo.find_extreme_points(cost, ideal)
    intercepts = emo.find_intercepts(extremes, ideal, highest, worst)
    line, distance = emo.associate_to_niche(cost, lines, ideal, intercepts)
    return Niches(line, distance)
