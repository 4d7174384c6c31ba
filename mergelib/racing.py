"""Racing: few items for many candidates, more items for those that are ahead.

Successive halving (Karnin, Koren and Somekh 2013; Jamieson and Talwalkar 2016): the candidates of a
generation are asked nested sets of the anchor items, and after each set the better share goes on.

What follows depends on the algorithm. One that smooths takes the scores as they are, those of few
answers for noisier, so that nobody needs to be asked again. To one that goes by ranks who was
dropped is no better than who went on (`behind`), and who is ahead at the end challenges the
incumbent, the best of the generations before: it is asked half as many items again, and the two are
compared on the items that both have answered (`mergelib.fitness.Judge.overtakes`).
"""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.evolution.front import ranks as front_numbers
from mergelib.search import Search
from mergelib.sections.fitness import Racing

FloatArray = NDArray[np.float64]


def rung_sizes(items: int, race: Racing | None) -> list[int]:
    """How many items have been asked after each rung: rising, the last one `items`.

    Each rung costs about as much as the next one, since as many times fewer candidates as `keep`
    says answer as many times more items. Rounded down, so that three rungs of halves cost no more
    than half of what it costs to ask all of them everything.
    """
    if race is None:
        return [items]
    sizes = [max(1, int(items * race.keep**step)) for step in reversed(range(race.rungs))]
    return sorted(set(sizes))


def survivors(fitness: FloatArray, keep: float) -> list[int]:
    """Who goes on to the next rung.

    Args:
        fitness: (n, k), maximised; a row with NaN is a failed candidate.
        keep: the share of the candidates, failed ones counted, that goes on.

    Returns:
        Row numbers, ascending: the best by `ranks`, at least one where any has been scored.
    """
    order = ranks(fitness)
    count = max(1, math.ceil(len(fitness) * keep))
    return sorted(row for row in order[:count] if np.isfinite(fitness[row]).all())


def ranks(fitness: FloatArray) -> list[int]:
    """Row numbers from best to worst, failed rows last.

    With one objective by fitness; with several by front after front, and within a front by the sum
    of the objectives' ranks. Ties keep their order.
    """
    rows = range(len(fitness))
    known = np.nan_to_num(fitness, nan=-np.inf)
    if fitness.shape[1] == 1:
        return sorted(rows, key=lambda row: -float(known[row, 0]))
    depth = _front_numbers(fitness)
    places = np.argsort(np.argsort(-known, axis=0, kind="stable"), axis=0)
    total = places.sum(axis=1)
    return sorted(rows, key=lambda row: (int(depth[row]), int(total[row])))


def comparable(search: Search, table: pa.Table) -> NDArray[np.bool_]:
    """Among which candidates the best may be sought: in a race, those that got to its end.

    The highest estimates of few answers are luck. Where a race ranks, all are comparable, since who
    was dropped is not ahead of the others.

    Args:
        search: the search.
        table: of whole generations.

    Returns:
        (candidates,), false for those that failed.
    """
    scored = np.array([status == "ok" for status in table["status"].to_pylist()], dtype=np.bool_)
    if search.fitness.race is None or search.ranks_racers:
        return scored
    generation, items = (np.array(table[name].to_pylist()) for name in ("generation", "items"))
    furthest = np.zeros(len(scored), dtype=np.bool_)
    for number in np.unique(generation[scored]):
        racers = scored & (generation == number)
        furthest |= racers & (items == items[racers].max())
    return furthest


def behind(fitness: FloatArray, dropped: Sequence[int]) -> FloatArray:
    """Fitness in which no candidate that was dropped is ahead of one that went on.

    On few items a lucky candidate may have the higher estimate and yet have lost to its peers.

    Args:
        fitness: (n, k), maximised; NaN failed.
        dropped: rows of candidates that did not reach the last rung.

    Returns:
        (n, k), in which dropped rows are at most the others' minimum in each objective.
    """
    out = list(dropped)
    stayed = np.setdiff1d(np.arange(len(fitness)), out)
    if not out or np.isnan(fitness[stayed]).all():
        return fitness
    capped = fitness.copy()
    capped[out] = np.minimum(capped[out], np.nanmin(fitness[stayed], axis=0))
    return capped


def _front_numbers(fitness: FloatArray) -> NDArray[np.int64]:
    """Which front each row is on, 0 the best; failed rows are on none and come last."""
    numbers = np.full(len(fitness), len(fitness), dtype=np.int64)
    scored = np.isfinite(fitness).all(axis=1)
    if scored.any():
        numbers[scored] = front_numbers(fitness[scored])
    return numbers
