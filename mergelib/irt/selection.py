"""Which items the candidates of a search are asked."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergelib.errors import InputError, unknown
from mergelib.irt.ability import gaussian_weights
from mergelib.irt.bank import GRID, FloatArray, ItemBank

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SelectionContext:
    """What a strategy may look at.

    Attributes:
        bank: all N items.
        calibration_responses: (models, N) of 0, 1 or NaN (not asked); None without any.
        endpoint_responses: (J, N) of 0, 1 or NaN; None without any.
        pool: (K,) indices of the items that may be chosen; None for all of them.
    """

    bank: ItemBank
    calibration_responses: FloatArray | None = None
    endpoint_responses: FloatArray | None = None
    pool: IntArray | None = None


Selection = Callable[[int, IntArray, SelectionContext, np.random.Generator], IntArray]
"""(n, pool (K,), context, generator) -> n of the pool's indices, each once, in any order."""


def select(strategy: str, n: int, context: SelectionContext, rng: np.random.Generator) -> IntArray:
    """Choose n items.

    Args:
        strategy: a key of `SELECTIONS`.
        n: how many, at least 1.
        context: the items and what is known of them.
        rng: the only source of chance.

    Returns:
        (n,) indices into the bank, ascending, each once.

    Raises:
        InputError: an unknown strategy, n outside 1 to the pool's size, a pool or responses that
            do not fit the bank, or no responses of the kind that the strategy needs.
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
    chosen: IntArray = np.sort(SELECTIONS[strategy](n, pool, context, rng))
    return chosen


def easiness(context: SelectionContext) -> FloatArray:
    """Share right (N,) of each item among the calibration models.

    The bank's expectation over abilities ~ N(0, 1) stands in for items that no model answered.
    """
    expected: FloatArray = gaussian_weights(0.0, 1.0) @ context.bank.probability(GRID)
    if context.calibration_responses is None:
        return expected
    asked = ~np.isnan(context.calibration_responses)
    count = asked.sum(0)
    right = np.where(asked, context.calibration_responses, 0.0).sum(0)
    return np.where(count > 0, right / np.maximum(count, 1), expected)


def _random(
    n: int, pool: IntArray, context: SelectionContext, rng: np.random.Generator
) -> IntArray:
    return rng.choice(pool, size=n, replace=False)


def _systematic(
    n: int, pool: IntArray, context: SelectionContext, rng: np.random.Generator
) -> IntArray:
    """Every k-th item from the easiest to the hardest, with a random start."""
    shuffled = rng.permutation(pool)  # items of equal easiness come in random order
    order = np.argsort(-easiness(context)[shuffled], kind="stable")
    return _every_kth(n, shuffled[order], rng)


def _stratified(
    n: int, pool: IntArray, context: SelectionContext, rng: np.random.Generator
) -> IntArray:
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
    return _every_kth(n, shuffled[order], rng)


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
}
