"""Other anchor items for each generation, so that a search cannot fit itself to a few of them.

A search that asks the same few items all through ends with what those items like: the best of 400
candidates on 30 items was seen at 90 % of them and at 72 % of the benchmark. With other items for
each generation the errors of the estimates are independent of one another, and an algorithm that
smooths them over the genomes averages them out. What is lost is that candidates of different
generations are not compared on the same items; an item response model allows for that by the
items' difficulty.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mergelib.irt.selection import SelectionContext, nested, select
from mergelib.racing import rung_sizes
from mergelib.search import Search


def period_of(search: Search, generation: int) -> int:
    """How often the anchor items have been renewed before a generation; 0 for the first ones."""
    return generation // search.renewal if search.renewal else 0


def renewed(
    search: Search, period: int, context: SelectionContext, reserved: Sequence[str]
) -> list[list[str]]:
    """The anchor items of a period after the first, rung by rung, in the bank's order.

    Without a race there is one rung.

    Args:
        search: says how many, how they are chosen, and the seed.
        period: at least 1.
        context: of the benchmark.
        reserved: items that are to decide between the finalists, which no candidate is asked
            before; all items may be asked where too few others are left.
    """
    items, kept = context.bank.items, set(reserved)
    count = min(search.fitness.items, len(items))
    pool = np.array([n for n, item in enumerate(items) if item not in kept])
    if len(pool) < count:
        pool = np.arange(len(items))
    random = np.random.default_rng([search.seed, 0x2E4E, period])  # a stream of its own
    strategy = search.fitness.selection
    chosen = select(strategy, count, replace(context, pool=pool), random)
    sizes = rung_sizes(count, search.fitness.race)
    sets = [s.items for s in nested(strategy, sizes, replace(context, pool=chosen), random)]
    before = [np.array([], dtype=np.int64), *sets[:-1]]
    rungs = [np.setdiff1d(more, less) for less, more in zip(before, sets, strict=True)]
    return [[items[n] for n in rung] for rung in rungs]
