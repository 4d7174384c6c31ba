"""The end of a search: who is re-scored, who wins, and what is said of each model.

Estimates on anchor items choose who may win, and further items of the search pool decide between
them. With one objective they choose the winner, in rounds, so that its score on the fresh items is
no maximum over draws. With several they choose the better half, and the front is taken on the fresh
items, over what is left, endpoints and base together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.errors import SearchError
from mergelib.evolution.front import hypervolume, non_dominated, spread
from mergelib.fitness import Judge
from mergelib.goals import Goals, estimates_of
from mergelib.intervals import mean_score, paired_difference
from mergelib.smoothing import smoothed, worth_a_look
from mergelib.tables import items_of, response_matrix
from mergelib.workbench import Workbench

FINALIST_SCHEMA = pa.schema(
    {
        "model": pa.string(),
        "name": pa.string(),
        "role": pa.string(),
        "benchmark": pa.string(),
        "items": pa.int32(),
        "score": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "diff": pa.float64(),
        "diff_low": pa.float64(),
        "diff_high": pa.float64(),
        "uniform_diff": pa.float64(),
        "uniform_diff_low": pa.float64(),
        "uniform_diff_high": pa.float64(),
        "estimate": pa.float64(),
        "recipe": pa.string(),
    }
)


@dataclass(frozen=True)
class Contender:
    """A model that is re-scored at the end.

    Attributes:
        model: its digest.
        name: what tables call it.
        role: base, endpoint, uniform or finalist.
        reference: what `Workbench.evaluate` takes: a checkpoint's reference or a recipe's YAML.
        estimates: of each benchmark, from the search; empty where there is none.
    """

    model: str
    name: str
    role: str
    reference: str
    estimates: Mapping[str, float]


def parents(bench: Workbench) -> list[Contender]:
    """The base model and the endpoints."""
    return [
        Contender(
            model=checkpoint.fingerprint,
            name=checkpoint.name,
            role="base" if reference == bench.search.base else "endpoint",
            reference=reference,
            estimates={},
        )
        for reference, checkpoint in bench.checkpoints.items()
    ]


def best_of(
    table: pa.Table,
    judge: Judge,
    count: int,
    role: str,
    here: Callable[[str], str] = str,
    *,
    smooth: bool = False,
) -> list[Contender]:
    """The best recipes of a table by what the optimiser was told of them, each once.

    Args:
        table: candidates, with a generation's columns.
        judge: the search's judge.
        count: how many at most.
        role: what they shall be called.
        here: takes a recipe of the table and returns it with its models' present names.
        smooth: whether to go by the fitness smoothed over the genomes (`mergelib.smoothing`), which
            is not for races that rank, in which who was dropped has not the fitness of an estimate.

    Returns:
        For one best model the highest fitness first, then the next highest, the incumbent of a race
        before all others; if smoothed, then whoever may be better than those before. For a front a
        well-spread choice of it, then of the front without it, and so on, since estimates are too
        coarse to tell neighbours apart. Of equal ones the latest: a search's later candidates are
        better.

    Raises:
        SearchError: no candidate has been scored.
    """
    latest_first = [row for row in reversed(table.to_pylist()) if row["status"] == "ok"]
    if not latest_first:
        raise SearchError("no candidate could be scored; the reasons are in generations/")
    by_model: dict[str, dict[str, Any]] = {}
    for row in latest_first:
        # In a race, a recipe that came again may have got further the first time.
        if row["individual"] not in by_model or row["items"] > by_model[row["individual"]]["items"]:
            by_model[row["individual"]] = row
    rows = list(by_model.values())
    of_rows = pa.Table.from_pylist(rows, schema=table.schema)
    fitness = judge.told(of_rows)
    if smooth:
        chosen = _by_smoothed(of_rows, fitness, count, front=judge.goals.front)
    elif judge.goals.front:
        chosen = _front_after_front(fitness, count)
    else:
        latest = next((row["individual"] for row in latest_first if row["incumbent"]), None)
        others = [row["individual"] != latest for row in rows]
        chosen = np.lexsort((-fitness[:, 0], others))[:count].tolist()
    names = judge.goals.names
    scores = estimates_of(of_rows, names)
    return [
        Contender(
            model=rows[n]["individual"],
            name=f"{role} {rows[n]['individual'][:8]}",
            role=role,
            reference=here(rows[n]["recipe"]),
            estimates=dict(zip(names, scores[n].tolist(), strict=True)),
        )
        for n in chosen
    ]


def _by_smoothed(
    latest_first: pa.Table, fitness: NDArray[np.float64], count: int, *, front: bool
) -> list[int]:
    """Row numbers by the fitness smoothed over the genomes."""
    x, items = (np.array(latest_first[name].to_pylist())[::-1] for name in ("genome", "items"))
    oldest_first = fitness[::-1]
    if front:
        return _front_after_front(smoothed(x, oldest_first, items)[::-1], count)
    found = worth_a_look(x, oldest_first, items, count)
    return [len(fitness) - 1 - row for row in found]


def _front_after_front(scores: NDArray[np.float64], count: int) -> list[int]:
    """Row numbers of distinct scores (n, k), a spread choice of each front before the next."""
    _, first = np.unique(scores, axis=0, return_index=True)
    left = np.sort(first)
    left = left[~np.isnan(scores[left]).any(axis=1)]
    chosen: list[int] = []
    while left.size and len(chosen) < count:
        chosen += left[spread(scores[left], count - len(chosen))].tolist()
        left = left[~non_dominated(scores[left])]
    return chosen


def better_half(contenders: Sequence[Contender], fitness: NDArray[np.float64]) -> list[Contender]:
    """Half of the contenders, front after front, a spread choice of the last one.

    Args:
        contenders: whom to choose from.
        fitness: (contenders, k), on more items than they were chosen by; NaN failed.
    """
    count = -(-len(contenders) // 2)
    return [contenders[number] for number in _front_after_front(fitness, count)]


def front(contenders: Sequence[Contender], responses: pa.Table, goals: Goals) -> set[str]:
    """The digests of the contenders that no other dominates on their mean responses.

    A constraint below the base is held to the base's score on the same items.
    """
    scores = mean_scores(contenders, responses, goals.names)
    base = next((n for n, c in enumerate(contenders) if c.role == "base"), None)
    of_base = {} if base is None else dict(zip(goals.names, scores[base].tolist(), strict=True))
    mask = non_dominated(goals.fitness(scores, of_base))
    return {c.model for c, on_front in zip(contenders, mask, strict=True) if on_front}


def with_uniform(contenders: Sequence[Contender], winners: set[str]) -> list[Contender]:
    """The contenders, and as finalists the uniform merges on the front that are none yet.

    They have answered what the others have, and a front without them would not be one.
    """
    finalists = {one.model for one in contenders if one.role == "finalist"}
    members = [
        replace(one, role="finalist", name=f"finalist {one.model[:8]}")
        for one in contenders
        if one.role == "uniform" and one.model in winners - finalists
    ]
    return [*contenders, *members]


def front_hypervolume(table: pa.Table, names: Sequence[str], roles: Sequence[str]) -> float:
    """The share of [0, 1]^k that models of some roles dominate, by their scores."""
    rows = [row for row in table.to_pylist() if row["role"] in roles]
    scores = {(row["model"], row["benchmark"]): row["score"] for row in rows}
    models = list(dict.fromkeys(row["model"] for row in rows))
    if not models:
        return 0.0
    matrix = np.array([[scores[model, name] for name in names] for model in models])
    return hypervolume(matrix, [0.0] * len(names))


def finalists_table(
    contenders: Sequence[Contender], winners: set[str], responses: pa.Table, names: Sequence[str]
) -> pa.Table:
    """Score every contender on the fresh items.

    Args:
        contenders: base, endpoints, uniform merge and finalists.
        winners: digests of the winner, or of the front's members; their role becomes "winner".
        responses: to the fresh items, of all contenders.
        names: the benchmarks.

    Returns:
        A row for each contender and benchmark (`FINALIST_SCHEMA`): the mean with its 95 %
        interval (`mean_score`), and the paired differences to that benchmark's best endpoint
        (`diff`) and best uniform merge (`uniform_diff`) with theirs (`paired_difference`). A recipe
        that is there in two roles has rows in both.

    Raises:
        SearchError: a parent or a winner could not be scored.
    """
    models = [contender.model for contender in contenders]
    rows: list[dict[str, Any]] = []
    for name in names:
        matrix = response_matrix(responses, name, models, items_of(responses, name))
        best_endpoint = _best(contenders, matrix, "endpoint")
        best_uniform = _best(contenders, matrix, "uniform")
        for number, (contender, row) in enumerate(zip(contenders, matrix, strict=True)):
            scored = int((~np.isnan(row)).sum())
            is_winner = contender.role == "finalist" and contender.model in winners
            if not scored and (is_winner or contender.role in _PARENTS):
                raise SearchError(
                    f"{contender.name} has no scored answer to {name}'s fresh items; the same "
                    "command tries again"
                )
            interval = mean_score(row)
            rows.append(
                {
                    "model": contender.model,
                    "name": contender.name,
                    "role": "winner" if is_winner else contender.role,
                    "benchmark": name,
                    "items": scored,
                    "score": float(interval.value),
                    "low": float(interval.low),
                    "high": float(interval.high),
                    **_difference("diff", matrix, number, best_endpoint),
                    **_difference("uniform_diff", matrix, number, best_uniform),
                    "estimate": contender.estimates.get(name),
                    "recipe": contender.reference if contender.role not in _PARENTS else None,
                }
            )
    return pa.Table.from_pylist(rows, schema=FINALIST_SCHEMA)


_PARENTS = ("base", "endpoint")


def _best(contenders: Sequence[Contender], matrix: NDArray[np.float64], role: str) -> int:
    """Which row has the highest mean among the contenders of a role."""
    rows = [number for number, contender in enumerate(contenders) if contender.role == role]
    return max(rows, key=lambda number: float(np.nan_to_num(_means(matrix[[number]])[0], nan=-1)))


def _difference(name: str, matrix: NDArray[np.float64], row: int, other: int) -> dict[str, float]:
    """A row's paired difference to another: exactly 0 to itself, which the formula would spread."""
    if row == other:
        return {name: 0.0, f"{name}_low": 0.0, f"{name}_high": 0.0}
    interval = paired_difference(matrix[row], matrix[other])
    return {
        name: float(interval.value),
        f"{name}_low": float(interval.low),
        f"{name}_high": float(interval.high),
    }


def mean_scores(
    contenders: Sequence[Contender], responses: pa.Table, names: Sequence[str]
) -> NDArray[np.float64]:
    """Mean responses, (contenders, benchmarks); NaN for one that was hardly scored."""
    models = [contender.model for contender in contenders]
    columns = []
    for name in names:
        matrix = response_matrix(responses, name, models, items_of(responses, name))
        columns.append(_means(matrix))
    return np.array(columns).T


def _means(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each row's scored cells; NaN for a row of which less than half is scored."""
    scored = (~np.isnan(matrix)).sum(axis=1)
    means: NDArray[np.float64] = np.nansum(matrix, axis=1) / np.maximum(scored, 1)
    return np.where(2 * scored >= max(1, matrix.shape[1]), means, np.nan)
