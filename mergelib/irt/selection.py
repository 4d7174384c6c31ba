"""Which items the candidates of a search are asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from mergelib.errors import InputError, unknown
from mergelib.irt.ability import gaussian_weights
from mergelib.irt.anchors import IntArray, clustered_anchors, filled, informative_items, near_level
from mergelib.irt.bank import GRID, FloatArray, ItemBank


@dataclass(frozen=True, eq=False)
class SelectionContext:
    """What a strategy may look at.

    Attributes:
        bank: all N items.
        calibration_responses: (models, N) of 0, 1 or NaN (not asked); None without any.
        endpoint_responses: (J, N) of 0, 1 or NaN; None without any.
        pool: (K,) indices of the items that may be chosen; None for all of them.
        level: the accuracy, in [0, 1], around which 'informative' tells siblings apart; None for
            the best endpoint's, or without endpoints for the calibration models' highest.
    """

    bank: ItemBank
    calibration_responses: FloatArray | None = None
    endpoint_responses: FloatArray | None = None
    pool: IntArray | None = None
    level: float | None = None


class Selected(NamedTuple):
    """Items, and the weights of their responses in a mean.

    Attributes:
        items: (n,) indices into the bank, ascending, each once.
        weights: (N,) share weights of all the bank's items, sum 1, 0 for those not chosen; None
            for equal ones. An `EstimatorContext` takes them as they are.
    """

    items: IntArray
    weights: FloatArray | None


Selection = Callable[[int, IntArray, SelectionContext, np.random.Generator], Selected]
"""(n, pool (K,), context, generator) -> n of the pool's indices, each once, in any order."""


def select(strategy: str, n: int, context: SelectionContext, rng: np.random.Generator) -> IntArray:
    """Choose n items; `select_weighted` without the weights, with the same errors.

    Returns:
        (n,) indices into the bank, ascending, each once.
    """
    return select_weighted(strategy, n, context, rng).items


def select_weighted(
    strategy: str, n: int, context: SelectionContext, rng: np.random.Generator
) -> Selected:
    """Choose n items.

    Args:
        strategy: a key of `SELECTIONS`.
        n: how many, at least 1.
        context: the items and what is known of them.
        rng: the only source of chance.

    Raises:
        InputError: an unknown strategy, n outside 1 to the pool's size, a pool, responses or a
            level that do not fit, or too few responses of the kind that the strategy needs.
    """
    if strategy not in SELECTIONS:
        raise InputError(f"selection: {unknown('a way to select items', strategy, SELECTIONS)}")
    total = len(context.bank)
    pool = np.arange(total) if context.pool is None else np.unique(context.pool).astype(np.int64)
    if pool.size and (pool[0] < 0 or pool[-1] >= total):
        raise InputError(f"selection: the pool names items outside 0 to {total - 1}")
    if not 1 <= n <= pool.size:
        raise InputError(
            f"selection: {n} items asked of a pool of {pool.size}; ask for 1 to {pool.size}"
        )
    for name in ("calibration_responses", "endpoint_responses"):
        responses = getattr(context, name)
        if responses is not None and (responses.ndim != 2 or responses.shape[1] != total):
            raise InputError(f"selection: {name} of shape {responses.shape}, not (models, {total})")
    if context.level is not None and not 0 <= context.level <= 1:
        raise InputError(f"selection: level {context.level} is no accuracy; give 0 to 1")
    chosen = SELECTIONS[strategy](n, pool, context, rng)
    return chosen._replace(items=np.sort(chosen.items))


def nested(
    strategy: str, sizes: Sequence[int], context: SelectionContext, rng: np.random.Generator
) -> list[Selected]:
    """Choose sets of items, each contained in the next, for the rungs of a race.

    The largest is chosen first, and each smaller one from the next larger, by the same strategy:
    each is what the strategy makes of its size ('informative' ones are the same as chosen alone).

    Args:
        strategy: a key of `SELECTIONS`.
        sizes: of the sets, rising.
        context: the items and what is known of them.
        rng: the only source of chance.

    Returns:
        A set for each size.

    Raises:
        InputError: as `select_weighted`, or the sizes do not rise.
    """
    if not sizes or any(a >= b for a, b in zip(sizes, sizes[1:], strict=False)):
        raise InputError(
            f"selection: sizes {list(sizes)} do not rise; give each larger than the last"
        )
    sets: list[Selected] = []
    for n in reversed(sizes):
        sets.insert(0, select_weighted(strategy, n, context, rng))
        context = replace(context, pool=sets[0].items)
    return sets


def easiness(context: SelectionContext) -> FloatArray:
    """Share right (N,) of each item among the calibration models.

    The bank's expectation over abilities ~ N(0, I) stands in for items that no model answered.
    """
    bank = context.bank
    # alpha . gamma is normal too, of sd |alpha|: one ability of that discrimination does the same
    alpha = bank.discrimination.reshape(len(bank), -1)
    z = np.outer(GRID, np.linalg.norm(alpha, axis=1)) - bank.difficulty
    expected: FloatArray = gaussian_weights(0.0, 1.0) @ expit(z)
    if context.calibration_responses is None:
        return expected
    asked = ~np.isnan(context.calibration_responses)
    count = asked.sum(0)
    right = np.where(asked, context.calibration_responses, 0.0).sum(0)
    return np.where(count > 0, right / np.maximum(count, 1), expected)


def _random(
    n: int, pool: IntArray, context: SelectionContext, rng: np.random.Generator
) -> Selected:
    return Selected(rng.choice(pool, size=n, replace=False), None)


def _systematic(
    n: int, pool: IntArray, context: SelectionContext, rng: np.random.Generator
) -> Selected:
    """Every k-th item from the easiest to the hardest, with a random start."""
    shuffled = rng.permutation(pool)  # items of equal easiness come in random order
    order = np.argsort(-easiness(context)[shuffled], kind="stable")
    return Selected(_every_kth(n, shuffled[order], rng), None)


def _stratified(
    n: int, pool: IntArray, context: SelectionContext, rng: np.random.Generator
) -> Selected:
    """Proportional shares of the endpoints' response patterns, at random within each.

    Every k-th item of a list in which a pattern's items stand together, shuffled, takes from each
    pattern its share rounded up or down, and every item with the same probability n / K.
    """
    if context.endpoint_responses is None:
        raise InputError("selection: 'stratified' needs the endpoints' responses; use 'random'")
    shuffled = rng.permutation(pool)
    # 0 wrong, 1 right, 2 not scored; patterns with equally many right stand side by side
    pattern = np.nan_to_num(context.endpoint_responses[:, shuffled], nan=2.0)
    order = np.lexsort((*pattern, (pattern == 1).sum(0)))
    return Selected(_every_kth(n, shuffled[order], rng), None)


def _clustered(
    n: int, pool: IntArray, context: SelectionContext, rng: np.random.Generator
) -> Selected:
    """The items nearest to the centres of n clusters, each weighted by its cluster's share."""
    anchors = clustered_anchors(context.bank, n, pool, rng)
    weights = np.zeros(len(context.bank))
    weights[anchors.items] = anchors.weights
    return Selected(anchors.items, weights)


def _informative(
    n: int, pool: IntArray, context: SelectionContext, rng: np.random.Generator
) -> Selected:
    """The items that tell siblings apart: they bias a mean, so no weights could mend it."""
    calibration = context.calibration_responses
    if calibration is None:
        raise InputError("selection: 'informative' needs calibration responses; use 'random'")
    models, level = filled(calibration, context.bank), context.level
    if level is None:
        endpoints = context.endpoint_responses
        known = models[:0] if endpoints is None else filled(endpoints, context.bank)
        level = float((known if len(known) else models).mean(1).max(initial=0.0))
    return Selected(informative_items(near_level(models, level), n, rng.permutation(pool)), None)


def _every_kth(n: int, ordered: IntArray, rng: np.random.Generator) -> IntArray:
    """Systematic sample of equal inclusion probabilities (Madow, 1949), for any n up to K."""
    step = ordered.size / n
    positions = np.floor(rng.uniform(0.0, step) + step * np.arange(n)).astype(np.int64)
    # rounding may carry the last position to K; the others are at least 1 apart
    chosen: IntArray = ordered[np.minimum(positions, ordered.size - 1)]
    return chosen


SELECTIONS: dict[str, Selection] = {
    "random": _random,
    "systematic": _systematic,
    "stratified": _stratified,
    "clustered": _clustered,
    "informative": _informative,
}

RANDOM_SELECTIONS = ("random", "systematic", "stratified")
"""Those that choose other items with another generator."""
