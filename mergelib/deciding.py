"""Who wins, of candidates that estimates have chosen: rounds on further items."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mergelib.errors import SearchError
from mergelib.evaluation import Asked
from mergelib.finalists import Contender, mean_scores
from mergelib.fitness import Judge
from mergelib.tables import items_of


class Round(NamedTuple):
    """A round of the decision between candidates of one objective.

    Attributes:
        contenders: how many are in it.
        asked: which items of each benchmark they are asked, further than before; empty where a
            small pool has no others.
    """

    contenders: int
    asked: Asked


def contenders_of_rounds(finalists: int) -> list[int]:
    """How many are in each round: the finalists are the better half of those who begin."""
    return [2 * finalists, finalists, math.ceil(finalists / 2)]


def rounds(judge: Judge, finalists: int, items: int) -> list[Round]:
    """Successive halving, for about as many answers as if the finalists alone answered all items.

    Twice as many begin, on a quarter of the items: the finalists are the better half of them. The
    better half of those answers the second half of the items too (Karnin, Koren and Somekh 2013,
    "Almost optimal exploration in multi-armed bandits").

    Args:
        judge: the search's judge, which says what the items are.
        finalists: how many are to be left after the first round.
        items: how many the last round has of each benchmark, where that has so many.
    """
    all_items = judge.unseen(items)
    most = max(map(len, all_items.values()))
    found: list[Round] = []
    before: Asked = dict.fromkeys(all_items, [])
    for contenders, share in zip(contenders_of_rounds(finalists), (4, 2, 1), strict=True):
        until = judge.unseen(math.ceil(most / share))
        further = {name: [i for i in ids if i not in before[name]] for name, ids in until.items()}
        found.append(Round(contenders, further if any(further.values()) else {}))
        before = until
    return found


def leaders(contenders: Sequence[Contender], responses: pa.Table, judge: Judge) -> list[Contender]:
    """The contenders that could be scored, the highest fitness first; of equals as they were.

    Args:
        contenders: whom to order.
        responses: of all of them to the same items; other models' answers to these items may be
            among them.
        judge: the search's judge.

    Raises:
        SearchError: none could be scored.
    """
    scores = mean_scores(contenders, responses, judge.goals.names)
    # A limit below the base holds on the items that were asked: these may be hard ones.
    asked = {n: items_of(responses, n) for n in judge.goals.names}
    fitness = judge.of_means(scores, judge.base_on(asked))[:, 0]
    if np.isnan(fitness).all():
        raise SearchError("no finalist could be scored on the deciding items; see responses/")
    order = np.argsort(-fitness, kind="stable")
    return [contenders[row] for row in order if not np.isnan(fitness[row])]
