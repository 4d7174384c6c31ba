"""The incumbent of a race that ranks: the best candidate so far, by comparison and not by luck."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mergelib.fitness import Judge
from mergelib.runs import Run
from mergelib.tables import Answered


class Incumbent(NamedTuple):
    """The best candidate so far.

    Attributes:
        model: its digest.
        fitness: by its estimate on all that it has answered.
        generation: in which it became the incumbent; its responses are in that generation's file.
    """

    model: str
    fitness: float
    generation: int


def incumbent(run: Run, before: int) -> Incumbent | None:
    """The incumbent before a generation; None before the first."""
    for number in reversed(range(before)):
        for row in run.generation(number).to_pylist():
            if row["incumbent"]:
                return Incumbent(row["individual"], row["fitness"], number)
    return None


def challenger(run: Run, judge: Judge, generation: int, answered: list[Answered]) -> int | None:
    """Who of a generation is to be held to the incumbent on further items.

    Args:
        run: the run; it races.
        judge: the run's judge.
        generation: its number.
        answered: the generation after the race.

    Returns:
        The row of the one with the highest fitness, if it is above the incumbent's; None for
        nobody, and where a front is sought, which has no best.
    """
    if judge.goals.front:
        return None
    told = judge.raced(answered)[:, 0]
    if np.isnan(told).all():
        return None
    best = int(np.nanargmax(told))
    before = incumbent(run, generation)
    if before is not None:
        known = answered[best].model == before.model
        if known or told[best] <= before.fitness:
            return None
    return best


def with_incumbent(run: Run, judge: Judge, table: pa.Table, responses: pa.Table) -> pa.Table:
    """A generation's table with the mark of a new incumbent, if it has one.

    Args:
        run: the run.
        judge: its judge.
        table: the generation's table.
        responses: of the generation.
    """
    if not run.search.ranks_racers or judge.goals.front:
        return table
    rows = table.to_pylist()
    asked_most = max(row["items"] for row in rows)
    if asked_most <= judge.asked_most:
        return table
    row = next(n for n, row in enumerate(rows) if row["items"] == asked_most)
    before = incumbent(run, rows[row]["generation"])
    if before is not None:
        earlier = run.table(f"responses/{before.generation:04d}.parquet")
        both = pa.concat_tables([responses, earlier])
        if not judge.overtakes(both, rows[row]["individual"], before.model):
            return table
    marks = pa.array([n == row for n in range(len(rows))])
    return table.set_column(table.schema.get_field_index("incumbent"), "incumbent", marks)
