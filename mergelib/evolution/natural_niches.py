"""Natural niches, M2N2: candidates share the items, and mates bring what one lacks.

After SakanaAI/natural_niches (`natural_niches_fn.py` at commit 3b90342, "Competition and Attraction
Improve Model Fusion", arXiv:2508.16204). An item is a resource of size 1 that is split among all
who answer it right, so that the only one to answer an item gets all of it. There the children are
interpolations of two models' weights and come one at a time; here genomes are crossed and mutated
as in `ga`, a generation at a time, since a genome is not a model's weights but how to merge them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mergelib.evolution.population import (
    Genome,
    Individual,
    State,
    begin,
    design,
    scored,
    traits_of,
)
from mergelib.evolution.randomness import generator
from mergelib.evolution.variation import offspring, parents, rivals, with_parents

ALPHA = 1.0
"""How strictly an item is shared; 0 would be the plain sum of scores."""


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    state = begin("natural_niches", dimension, population, seed, first)
    return {**state, "parents": [], "fitness": [], "responses": []}


def ask(state: State) -> list[Genome]:
    """Breed the next population: one parent by its share of the items, the other by what it adds.

    Returns:
        `population` genomes; a space-filling design as long as no candidate has been scored.
    """
    stock = parents(state)
    if not stock:
        return design(state)
    rng = generator(state["seed"], state["generation"], "mates")
    shares = shared(completed(_responses(state), stock))
    first = shares.sum(axis=1)
    mates: list[Individual] = []
    # An odd population breeds one child more and drops it.
    for _ in range(-(-state["population"] // 2)):
        one = _drawn(first, rng)
        mates += [stock[one], stock[_drawn(attraction(shares, one), rng)]]
    return offspring(state, mates)


def tell(
    state: State,
    genomes: Sequence[Genome],
    fitness: NDArray[np.float64],
    traits: NDArray[np.float64] | None = None,
) -> State:
    """Drop the one with the smallest share until parents and newcomers are a population again.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes.
        fitness: (n, 1), maximised; NaN is a failed candidate, which never becomes a parent.
        traits: (n, m) responses in [0, 1] to m items, NaN where not scored. As long as m stays the
            same, a column is the same item in all generations. When m changes, parents that are
            not told again count with their mean on every item. None: see `completed`.

    Returns:
        The state of the next generation.

    Raises:
        InputError: more than one objective.
        ValueError: the traits' shape, or a response that is not in [0, 1].
    """
    newcomers = scored(state, genomes, fitness, objectives=1)
    told = traits_of(genomes, fitness, traits)
    pool = rivals(state, genomes, fitness, objectives=1)
    if not newcomers:
        return with_parents(state, parents(state)) | {"responses": state["responses"]}
    answers = _fitted(_responses(state), told.shape[1])
    known = {tuple(g): row for g, row in zip(state["parents"], answers, strict=True)}
    for genome, row in zip(newcomers, told, strict=True):
        # Told again on some of the items, it keeps what it answered on the others.
        before = known.get(tuple(genome), np.full_like(row, np.nan))
        known[tuple(genome)] = np.where(np.isnan(row), before, row)
    responses = np.array([known[tuple(one)] for one in pool])
    kept = survivors(completed(responses, pool), state["population"])
    following = with_parents(state, [pool[row] for row in kept])
    answered = [[None if np.isnan(y) else y for y in row] for row in responses[kept].tolist()]
    return {**following, "responses": answered}


def shared(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Split each item among those who answer it right.

    Args:
        scores: (n, m), not negative.

    Returns:
        (n, m): s_ij / z_j, z_j = (sum_i s_ij)^alpha; 0 where nobody has anything.
    """
    z = scores.sum(axis=0) ** ALPHA
    shares: NDArray[np.float64] = scores / np.where(z > 0.0, z, 1.0)
    return shares


def attraction(shares: NDArray[np.float64], one: int) -> NDArray[np.float64]:
    """Give each candidate's pull on parent `one`, (n,): sum_j max(0, s2_j - s1_j) of the shares."""
    pull: NDArray[np.float64] = np.maximum(0.0, shares - shares[one]).sum(axis=1)
    return pull


def survivors(scores: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Drop the row with the smallest share, share out anew, and so on until `count` are left.

    Args:
        scores: (n, m), not negative.
        count: how many to keep.

    Returns:
        The rows that are left, in their order; of equals the last goes first.
    """
    left = np.arange(len(scores))
    while len(left) > count:
        total = shared(scores[left]).sum(axis=1)
        smallest = np.flatnonzero(total <= total.min() * (1 + 1e-12))
        left = np.delete(left, smallest[-1])
    return left


def completed(
    responses: NDArray[np.float64], candidates: Sequence[Individual]
) -> NDArray[np.float64]:
    """Fill in what was not answered.

    A missing cell is the candidate's mean plus the item's minus the mean of all, within [0, 1].
    With no responses at all, rank by fitness stands for the score on a single item.

    Args:
        responses: (n, m), NaN where not scored.
        candidates: n, with their fitness.

    Returns:
        (n, m) or (n, 1), no NaN.
    """
    known = ~np.isnan(responses)
    if not known.any():
        values = [one.fitness.values[0] for one in candidates]
        return np.asarray(rankdata(values)[:, None] / len(values), dtype=np.float64)
    filled = np.where(known, responses, 0.0)
    everyone = filled.sum() / known.sum()

    def mean(axis: int) -> NDArray[np.float64]:
        count = known.sum(axis=axis)
        means: NDArray[np.float64] = filled.sum(axis=axis) / np.maximum(count, 1)
        return np.where(count > 0, means, everyone)

    expected = np.clip(mean(1)[:, None] + mean(0)[None, :] - everyone, 0.0, 1.0)
    return np.where(known, responses, expected)


def _responses(state: State) -> NDArray[np.float64]:
    rows = np.array(state["responses"], dtype=np.float64)  # None becomes NaN
    return rows.reshape(len(state["parents"]), -1) if rows.size else rows.reshape(len(rows), 0)


def _fitted(responses: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """As it is, or the row's mean on each of `width` other items, NaN without a response."""
    if responses.shape[1] == width:
        return responses
    known = ~np.isnan(responses)
    count = known.sum(axis=1)
    total = np.where(known, responses, 0.0).sum(axis=1)
    means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.repeat(means[:, None], width, axis=1)


def _drawn(weights: NDArray[np.float64], rng: np.random.Generator) -> int:
    """A row by its weight; any row if all weights are 0."""
    total = weights.sum()
    p = weights / total if total > 0.0 else None
    return int(rng.choice(len(weights), p=p))
