"""How much too narrow a search's intervals are: its asking replayed on models whose answers exist.

Cross-fitting: the calibration models are split into folds, the bank is calibrated without each, and
the fold's models are asked as candidates will be. What the model of the responses gets wrong, and
what a bank fitted to few responses does not know, then shows in intervals that miss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from mergelib.errors import InputError
from mergelib.estimators import Estimator, EstimatorContext, endpoint_abilities, parent_irt
from mergelib.irt.anchors import IntArray
from mergelib.irt.bank import FloatArray, ItemBank
from mergelib.irt.dimension import bank_of_dimensions
from mergelib.irt.selection import SelectionContext, select
from mergelib.irt.shift import NO_SHIFT, fit_shift

DEFAULT_WIDENING = 1.2
"""Where there is nothing to replay, and what few replays are drawn towards. 12 models of real
benchmarks that had answered 15 % of 350 items each needed 1.0 to 1.4."""
STRENGTH = 10.0  # models behind the default
ENOUGH = 80  # held-out models from which on their own quantile is used
FEWEST_ITEMS = 5
ITERATIONS = 60  # of a fold's calibration
REPLAYS = 60  # of few models, each is asked several times


@dataclass(frozen=True, eq=False)
class Fold:
    """Models held out, and what the others say.

    Attributes:
        held: (H,) rows of the responses.
        rest: (R,) rows that the context was fitted to.
        context: bank, shift and endpoints' abilities from the rest.
    """

    held: IntArray
    rest: IntArray
    context: EstimatorContext


class Replay(NamedTuple):
    """What a replay found.

    Attributes:
        widening: for `EstimatorContext.widening`.
        models: how many different models were asked.
        coverage: share of the replays that the intervals held without widening; NaN without any.
    """

    widening: float
    models: int
    coverage: float


def cross_fit(
    responses: FloatArray,
    rng: np.random.Generator,
    *,
    endpoints: Sequence[int] = (),
    context: EstimatorContext | None = None,
    folds: int = 5,
) -> list[Fold]:
    """Calibrate without each fold of the models.

    Args:
        responses: (models, N) of 0, 1 or NaN, the calibration's.
        rng: which model is in which fold.
        endpoints: rows of the endpoints, which are never held out.
        context: the search's: what it holds besides bank, shift and abilities is kept, a shift is
            fitted where it has one, and banks have as many dimensions as its own. None for one
            ability and a shift.
        folds: how many, at least 2.

    Returns:
        At most `folds`, fewer with fewer models; none where no 2 models would be left, or with D
        dimensions no D + 1.

    Raises:
        InputError: as `calibrate`, or there are less than 2 folds.
    """
    if folds < 2:
        raise InputError(f"replay: {folds} folds; give at least 2")
    responses = np.asarray(responses, dtype=np.float64)
    candidates = np.setdiff1d(np.flatnonzero(~np.isnan(responses).all(axis=1)), endpoints)
    parts = np.array_split(rng.permutation(candidates), min(folds, max(len(candidates), 1)))
    items = [str(n) for n in range(responses.shape[1])]
    dimensions = 1 if context is None or context.bank is None else context.bank.dimensions
    fitted = []
    for held in parts:
        rest = np.setdiff1d(np.arange(len(responses)), held)
        if len(held) == 0 or len(rest) <= dimensions or np.isnan(responses[rest]).all():
            continue
        # Few responses take hundreds of iterations to the last digits, which matter little here.
        bank = bank_of_dimensions(responses[rest], items, dimensions, max_iterations=ITERATIONS)
        shift = NO_SHIFT
        if context is None or context.shift != NO_SHIFT:
            shift = fit_shift(responses[rest], bank)
        abilities = endpoint_abilities(responses[list(endpoints)], bank, shift)
        own = replace(
            context or EstimatorContext(), bank=bank, shift=shift, endpoint_abilities=abilities
        )
        fitted.append(Fold(np.sort(held), rest, own))
    return fitted


def replay(
    responses: FloatArray,
    folds: Sequence[Fold],
    n: int,
    strategy: str,
    rng: np.random.Generator,
    *,
    endpoints: Sequence[int] = (),
    estimator: Estimator = parent_irt,
) -> Replay:
    """Ask the held-out models n items and compare the intervals with their other answers.

    A model that answered all N items is asked the items that `strategy` chooses for its fold. One
    that answered some is asked n of those (half of them where it has not 2 n; left out with less
    than 10), chosen by the same strategy, and the target is its accuracy on the items it answered:
    for that the bank is cut to them, so that nothing unknown is left in the truth. The smaller pool
    has more chance in its unseen responses, which the intervals know exactly: with z the interval's
    nominal quantile, h its half-width and h_0 what is left of that without doubt about ability,
        (z error)^2 ~ h_0^2 + f^2 (h^2 - h_0^2)
    and f, the widening, is taken to be the same for the pool of all items.

    With at least `ENOUGH` models f is their split-conformal quantile (Lei et al., 2018) and may be
    below 1. With fewer it is the root of the mean of f^2 by moments, drawn towards
    `DEFAULT_WIDENING` as if by `STRENGTH` further models, times the ratio of Student's to the
    normal quantile, and at least 1. Without any it is the default.

    Args:
        responses: (models, N) as given to `cross_fit`.
        folds: from `cross_fit`.
        n: how many items a candidate is asked.
        strategy: a key of `mergelib.irt.selection.SELECTIONS`.
        rng: of the choice of items.
        endpoints: rows of the endpoints.
        estimator: an item response model's: the others' intervals know no widening.

    Raises:
        InputError: n is below 1, or as `select`.
    """
    if n < 1:
        raise InputError(f"replay: {n} items; ask for at least 1")
    count = sum(len(fold.held) for fold in folds)
    times = 1 if count >= ENOUGH else math.ceil(REPLAYS / max(count, 1))
    asked: list[_Asked] = []
    level = folds[0].context.level if folds else 0.95
    for fold in folds:
        complete = ~np.isnan(responses[fold.held]).any(axis=1)
        partial = fold.held[~complete]
        groups = [fold.held[complete], *partial[:, None]]
        for rows in groups:
            for _ in range(times if len(rows) else 0):
                asked.extend(_ask(responses, fold, rows, n, strategy, rng, endpoints, estimator))
    if not asked:
        return Replay(DEFAULT_WIDENING, 0, math.nan)
    error, half, chance = np.array([each[1:] for each in asked]).T
    models = len({each.model for each in asked})
    coverage = float(np.mean(error <= half + 1e-12))
    doubt = np.maximum(half**2 - chance**2, 1e-12)
    if models >= ENOUGH:
        scores = np.sort(np.sqrt(np.maximum(error**2 - chance**2, 0.0) / doubt))
        rank = min(math.ceil(level * (len(scores) + 1)), len(scores))
        return Replay(float(scores[rank - 1]), models, coverage)
    z = float(ndtri(0.5 + level / 2))
    found = ((z * error) ** 2 - chance**2).mean() / doubt.mean()
    square = (models * found + STRENGTH * DEFAULT_WIDENING**2) / (models + STRENGTH)
    student = float(stdtrit(models + STRENGTH, 0.5 + level / 2)) / z
    return Replay(max(1.0, student * math.sqrt(max(square, 0.0))), models, coverage)


class _Asked(NamedTuple):
    """One model's error, and the half-width on its side with doubt about ability and without."""

    model: int
    error: float
    half: float
    chance: float


def _ask(
    responses: FloatArray,
    fold: Fold,
    rows: IntArray,
    n: int,
    strategy: str,
    rng: np.random.Generator,
    endpoints: Sequence[int],
    estimator: Estimator,
) -> list[_Asked]:
    """Ask models of one fold that answered the same items."""
    pool = np.flatnonzero(~np.isnan(responses[rows[0]]))
    n = min(n, len(pool) // 2)
    bank = fold.context.bank
    if n < FEWEST_ITEMS or bank is None:
        return []
    context = SelectionContext(
        bank=bank,
        calibration_responses=responses[fold.rest],
        endpoint_responses=responses[list(endpoints)] if len(endpoints) else None,
        pool=pool,
    )
    chosen = select(strategy, n, context, rng)
    answers = responses[np.ix_(rows, pool)]
    given = np.where(np.isin(pool, chosen), answers, np.nan)
    own = bank if len(pool) == len(bank) else _cut(bank, pool)
    with_doubt = estimator(given, replace(fold.context, bank=own, widening=1.0))
    without = estimator(given, replace(fold.context, bank=own, widening=0.0))
    truth = answers.mean(1)
    above = truth >= with_doubt.value
    error = np.abs(truth - with_doubt.value)
    half, chance = (
        np.where(above, each.high - each.value, each.value - each.low)
        for each in (with_doubt, without)
    )
    return [_Asked(int(r), *map(float, e)) for r, *e in zip(rows, error, half, chance, strict=True)]


def _cut(bank: ItemBank, pool: IntArray) -> ItemBank:
    return ItemBank(
        tuple(bank.items[n] for n in pool),
        bank.discrimination[pool],
        bank.difficulty[pool],
        bank.discrimination_se[pool],
        bank.difficulty_se[pool],
    )
