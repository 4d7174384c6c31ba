"""The run folder's tables: their columns, and how evaluations become rows."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.workbench import Asked, Evaluation

RESPONSE_SCHEMA = pa.schema(
    {
        "model": pa.string(),
        "benchmark": pa.string(),
        "item_id": pa.string(),
        "response": pa.int8(),
        "value": pa.float64(),
        "answer": pa.string(),
        "reason": pa.string(),
        "seconds": pa.float64(),
    }
)


class Answered(NamedTuple):
    """One evaluation and what it was of.

    Attributes:
        model: the model's digest.
        asked: the items of each benchmark.
        evaluation: what came of it.
        reused: whether it had been answered before, in this run or another of the store.
    """

    model: str
    asked: Asked
    evaluation: Evaluation
    reused: bool


def responses_table(answered: Iterable[Answered]) -> pa.Table:
    """A row for each model and item (`RESPONSE_SCHEMA`).

    A model that failed has a row for each item that it should have answered, not scored, with the
    reason. `seconds` is the evaluation's time shared out evenly.
    """
    rows = []
    for model, asked, evaluation, _ in answered:
        seconds = evaluation["seconds_answer"] / max(1, evaluation["items"])
        failed = [None, None, "", evaluation["reason"]]
        for benchmark, ids in asked.items():
            scored = evaluation["responses"].get(benchmark, [failed] * len(ids))
            for item_id, (response, value, answer, reason) in zip(ids, scored, strict=True):
                row = (model, benchmark, item_id, response, value, answer, reason, seconds)
                rows.append(dict(zip(RESPONSE_SCHEMA.names, row, strict=True)))
    return pa.Table.from_pylist(rows, schema=RESPONSE_SCHEMA)


def response_matrix(
    table: pa.Table, benchmark: str, models: Sequence[str], items: Sequence[str]
) -> NDArray[np.float64]:
    """Pick a models x items matrix out of a table of responses.

    Args:
        table: with `RESPONSE_SCHEMA`'s columns.
        benchmark: whose items.
        models: digests, one a row; a digest may be there more than once.
        items: item ids, one a column.

    Returns:
        (models, items) of 0 and 1; NaN where not asked or not scored.
    """
    matrix = np.full((len(models), len(items)), np.nan)
    rows: dict[str, list[int]] = {}
    for number, model in enumerate(models):
        rows.setdefault(model, []).append(number)
    column = {item: number for number, item in enumerate(items)}
    names = ("model", "benchmark", "item_id", "response")
    for model, of, item, response in zip(*(table[n].to_pylist() for n in names), strict=True):
        if of == benchmark and model in rows and item in column and response is not None:
            matrix[rows[model], column[item]] = response
    return matrix


def generation_schema(benchmarks: Iterable[str]) -> pa.Schema:
    """The columns of `generations/*.parquet`; each benchmark adds estimate_, low_ and high_."""
    columns: dict[str, Any] = {
        "generation": pa.int32(),
        "individual": pa.string(),
        "genome": pa.list_(pa.float64()),
        "recipe": pa.string(),
        "fitness": pa.float64(),
        "status": pa.string(),
        "reason": pa.string(),
        "items": pa.int32(),
    }
    for benchmark in benchmarks:
        columns |= {f"{what}_{benchmark}": pa.float64() for what in ("estimate", "low", "high")}
    columns |= {
        "reused": pa.bool_(),
        "seconds_merge": pa.float64(),
        "seconds_answer": pa.float64(),
    }
    return pa.schema(columns)
