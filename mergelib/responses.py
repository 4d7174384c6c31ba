"""Responses to calibrate with, read from a file: other models' answers, or a former search's.

A file is wide, with a row for each model and a column for each item beside `model`, or long, with a
row for each cell: `model`, `item_id` (or `item`), `response`, and, where it holds several
benchmarks, `benchmark`. A run folder's `responses.parquet` is of the long form.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as pa_csv
from pyarrow import parquet as pq

from mergelib.errors import InputError, unknown
from mergelib.irt.binarise import binarised, threshold
from mergelib.irt.items import FloatArray

_SHOWN = 3
_TEXT = ("model", "item", "item_id", "benchmark")
_OF_A_RUN = {"answer", "reason", "seconds"}


class FileResponses(NamedTuple):
    """Responses read from a file.

    Attributes:
        models: (M,) names, in the file's order; those without any response are left out.
        items: (I,) identifiers.
        responses: (M, I) of 0 and 1, or of scores where they are kept; NaN where not asked or not
            scored.
        threshold: the c above which a score was read as right; None where nothing was binarised.
    """

    models: tuple[str, ...]
    items: tuple[str, ...]
    responses: FloatArray
    threshold: float | None


class _Cells(NamedTuple):
    """A matrix (models, items) of scores, NaN where there is none."""

    models: list[str]
    items: list[str]
    scores: FloatArray


def read_responses(
    path: Path,
    items: Sequence[str] | None = None,
    *,
    benchmark: str | None = None,
    passed_over: Collection[str] = (),
    binarise: bool = False,
    keep_scores: bool = False,
) -> FileResponses:
    """Read a benchmark's calibration responses from a Parquet or CSV file.

    In a former run's file the same cell may stand several times with the same response, because
    candidates come again; anywhere else a cell stands once.

    Args:
        path: ends in .parquet or .csv.
        items: the identifiers of the matrix's columns; those that the file lacks become NaN. None
            for all that the file has, in its order.
        benchmark: which rows of a long file with a benchmark column are meant; needed where there
            are several.
        passed_over: further identifiers that the file may have and that are left out, such as the
            items kept for the final scores.
        binarise: whether scores between 0 and 1 are read as right above the threshold at which
            the calibration models' accuracy is closest to their mean score.
        keep_scores: whether scores between 0 and 1 stay what they are, to be binarised together
            with others; a former run has them in its column `value`.

    Raises:
        InputError: the file cannot be read or has neither form; it holds items that are neither in
            `items` nor passed over, none of `items`, a model or a cell twice, or a value that is
            neither 0, 1 nor null (with `binarise` or `keep_scores`: outside 0 to 1); or no
            response is left.
    """
    table = _table(path)
    long = _is_long(table)
    cells = _long(path, table, benchmark, keep_scores) if long else _wide(path, table)
    known = set(cells.items if items is None else items) | set(passed_over)
    strange = [item for item in cells.items if item not in known]
    if strange:
        raise InputError(
            f"{path}: {len(strange)} of its items are not of the benchmark ({_some(strange)}); "
            "give responses to the benchmark's items only, under its item ids"
        )
    wanted = [item for item in cells.items if item not in passed_over] if items is None else items
    place = {item: number for number, item in enumerate(cells.items)}
    if not any(item in place for item in wanted):
        raise InputError(f"{path}: none of the benchmark's {len(wanted)} items")
    scores = np.full((len(cells.models), len(wanted)), np.nan)
    for number, item in enumerate(wanted):
        if item in place:
            scores[:, number] = cells.scores[:, place[item]]
    _check_values(path, scores, cells.models, wanted, binarise or keep_scores)
    answered = ~np.isnan(scores).all(axis=1)
    if not answered.any():
        raise InputError(f"{path}: every response to the benchmark's items is null")
    scores = scores[answered]
    models = tuple(name for name, kept in zip(cells.models, answered, strict=True) if kept)
    c = None
    if binarise and not np.all(np.isnan(scores) | (scores == 0) | (scores == 1)):
        c = threshold(scores)
        scores = binarised(scores, c)
    return FileResponses(models, tuple(wanted), scores, c)


def _table(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".csv":
            as_text = pa_csv.ConvertOptions(
                column_types=dict.fromkeys(_TEXT, pa.string()), strings_can_be_null=True
            )
            return pa_csv.read_csv(path, convert_options=as_text)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as a table: {reason}") from error
    raise InputError(f"{path}: ends in {path.suffix!r}; allowed are .parquet and .csv")


def _is_long(table: pa.Table) -> bool:
    names = set(table.column_names)
    return {"model", "response"} <= names and bool({"item", "item_id"} & names)


def _wide(path: Path, table: pa.Table) -> _Cells:
    if "model" not in table.column_names:
        raise InputError(
            f"{path}: no column 'model'; expected a row for each model and a column for each item, "
            "or the columns model, item_id and response"
        )
    _once(path, table.column_names, "column")
    models = _names(path, table, "model")
    _once(path, models, "model")
    items = [name for name in table.column_names if name != "model"]
    scores = np.full((len(models), len(items)), np.nan)
    for number, item in enumerate(items):
        scores[:, number] = _numbers(path, table[item], models, [item] * len(models))
    return _Cells(models, items, scores)


def _long(path: Path, table: pa.Table, benchmark: str | None, keep_scores: bool) -> _Cells:
    if "benchmark" in table.column_names:
        names = sorted(set(_names(path, table, "benchmark")))
        if benchmark is None and len(names) > 1:
            raise InputError(f"{path}: holds several benchmarks: {', '.join(names)}; say which")
        if benchmark is not None:
            if benchmark not in names:
                raise InputError(f"{path}: {unknown('a benchmark of it', benchmark, names)}")
            table = table.filter(pa.compute.equal(table["benchmark"], benchmark))
    item_column = "item_id" if "item_id" in table.column_names else "item"
    models, model = _codes(_names(path, table, "model"))
    items, item = _codes(_names(path, table, item_column))
    names_of = ([models[n] for n in model], [items[n] for n in item])
    values = _numbers(path, table["response"], *names_of)
    if keep_scores and "value" in table.column_names:
        values = np.where(np.isnan(values), _numbers(path, table["value"], *names_of), values)
    cell = model * len(items) + item
    if set(table.column_names) >= _OF_A_RUN:
        # the same answer, told again: one row of each cell and value, and no row of "not scored"
        kept = np.unique(np.stack([cell, values])[:, ~np.isnan(values)], axis=1)
        cell, values = kept[0].astype(np.int64), kept[1]
    unique, count = np.unique(cell, return_counts=True)
    if np.any(count > 1):
        twice = [divmod(int(c), len(items)) for c in unique[count > 1]]
        shown = [f"model {models[m]!r}, item {items[i]!r}" for m, i in twice[:_SHOWN]]
        raise InputError(
            f"{path}: {len(twice)} cells occur twice or more: {'; '.join(shown)}"
            f"{'; ...' if len(twice) > _SHOWN else ''}; give each one row"
        )
    scores = np.full(len(models) * len(items), np.nan)
    scores[cell] = values
    return _Cells(models, items, scores.reshape(len(models), len(items)))


def _names(path: Path, table: pa.Table, column: str) -> list[str]:
    names = table[column].to_pylist()
    if None in names:
        raise InputError(f"{path}: {column} is null in row {names.index(None)}")
    return list(map(str, names))


def _codes(names: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The different names in order, and each one's number."""
    number: dict[str, int] = {}
    codes = [number.setdefault(name, len(number)) for name in names]
    return list(number), np.array(codes, dtype=np.int64)


def _numbers(path: Path, column: Any, models: list[str], items: list[str]) -> FloatArray:
    """A column's values as floats, null as NaN."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    try:
        return np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        for value, model, item in zip(column.to_pylist(), models, items, strict=True):
            try:
                float("nan" if value is None else value)
            except (TypeError, ValueError):
                raise _bad_value(path, repr(value), model, item, "0, 1 and null") from None
        raise InputError(f"{path}: the responses are of type {column.type}") from None


def _check_values(
    path: Path, scores: FloatArray, models: Sequence[str], items: Sequence[str], binarise: bool
) -> None:
    inside = (scores >= 0) & (scores <= 1) if binarise else (scores == 0) | (scores == 1)
    bad = np.argwhere(~np.isnan(scores) & ~inside)
    if bad.size:
        allowed = "numbers from 0 to 1, and null" if binarise else "0, 1 and null"
        row, column = bad[0]
        value = f"{scores[row, column]:g}"
        raise _bad_value(path, value, models[row], items[column], allowed, len(bad) - 1)


def _bad_value(
    path: Path, value: str, model: str, item: str, allowed: str, others: int = 0
) -> InputError:
    more = f" ({others} other cells too)" if others else ""
    return InputError(
        f"{path}: {value} for model {model!r}, item {item!r}{more}; allowed are {allowed}; "
        "scores between 0 and 1 can be binarised"
    )


def _once(path: Path, names: Iterable[str], kind: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{path}: {len(twice)} {kind}s occur twice or more ({_some(twice)}); give each once"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
