"""The run folder's tables: their columns, and how evaluations become rows."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.errors import InputError
from mergelib.evaluation import Asked, Evaluation
from mergelib.irt.binarise import binarised

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


def combined(parts: Sequence[Answered]) -> Answered:
    """Several evaluations of one model, on different items, as one.

    Args:
        parts: at least one, of one model.

    Returns:
        All responses; costs are added up. If a part failed, all of it counts as failed, with that
        part's reason and no responses.
    """
    asked: dict[str, list[str]] = {}
    broken = [part for part in parts if part.evaluation["status"] != "ok"]
    evaluation: Evaluation = {**(broken or parts)[-1].evaluation, "responses": {}}
    for part in parts:
        for name, ids in part.asked.items():
            asked.setdefault(name, []).extend(ids)
            if not broken:
                answers = part.evaluation["responses"][name]
                evaluation["responses"].setdefault(name, []).extend(answers)
    for cost in ("items", "tokens", "flops", "seconds_merge", "seconds_answer"):
        evaluation[cost] = sum(part.evaluation[cost] for part in parts)
    reused = all(part.reused for part in parts)
    return Answered(parts[0].model, asked, evaluation, reused)


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


def items_of(responses: pa.Table, benchmark: str) -> list[str]:
    """The items of a benchmark that anybody was asked, in the table's order."""
    asked = responses.filter(pa.compute.equal(responses["benchmark"], benchmark))
    return asked["item_id"].unique().to_pylist()  # type: ignore[no-any-return]


def response_matrix(
    table: pa.Table,
    benchmark: str,
    models: Sequence[str],
    items: Sequence[str],
    threshold: float | None = None,
) -> NDArray[np.float64]:
    """Pick a models x items matrix out of a table of responses.

    A score that is neither right nor wrong has a value and no response.

    Args:
        table: with `RESPONSE_SCHEMA`'s columns.
        benchmark: whose items.
        models: digests, one a row; a digest may be there more than once.
        items: item ids, one a column.
        threshold: the value above which such a score counts as right; None to keep values.

    Returns:
        (models, items) of 0 and 1, without a threshold of numbers from 0 to 1; NaN where not asked
        or not scored.

    Raises:
        InputError: a value that stands for a response is outside 0 to 1.
    """
    matrix = np.full((len(models), len(items)), np.nan)
    rows: dict[str, list[int]] = {}
    for number, model in enumerate(models):
        rows.setdefault(model, []).append(number)
    column = {item: number for number, item in enumerate(items)}
    names = ("model", "benchmark", "item_id", "response", "value")
    for model, of, item, *scores in zip(*(table[n].to_pylist() for n in names), strict=True):
        response = scores[0] if scores[0] is not None else scores[1]
        if of == benchmark and model in rows and item in column and response is not None:
            matrix[rows[model], column[item]] = response
    outside = ~np.isnan(matrix) & ~((matrix >= 0) & (matrix <= 1))
    if outside.any():
        item = items[int(np.argwhere(outside)[0, 1])]
        raise InputError(
            f"{benchmark}: score {matrix[outside][0]:g} for item {item!r} is outside 0 to 1"
        )
    return matrix if threshold is None else binarised(matrix, threshold)


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
        "incumbent": pa.bool_(),
    }
    for benchmark in benchmarks:
        columns |= {f"{what}_{benchmark}": pa.float64() for what in ("estimate", "low", "high")}
    columns |= {
        "reused": pa.bool_(),
        "seconds_merge": pa.float64(),
        "seconds_answer": pa.float64(),
    }
    return pa.schema(columns)
