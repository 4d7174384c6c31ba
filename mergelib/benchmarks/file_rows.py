"""The rows of a plain file: Parquet, JSONL, CSV or TSV."""

import csv
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mergelib.errors import InputError, unknown

Row = dict[str | int, Any]
"""A row's values by the columns' names, or by their numbers from 1 on."""


def read_rows(path: Path, columns: Collection[str | int], key: str) -> list[Row]:
    """Read a file whole.

    The values of CSV and TSV are texts, those of the others what they are. An empty field is a
    text too; a column that only some lines of a JSONL file have is null in the others.

    Args:
        path: ends in one of `READERS`; a TSV file has no quotes, a CSV file may.
        columns: those that must be there: names; or numbers, where the file has no header.
        key: the search file's key, for error messages.

    Raises:
        InputError: no such file, of another kind, damaged, empty, or without one of the columns.
    """
    if path.suffix not in READERS:
        raise InputError(
            f"{key}: {path}: ends in {path.suffix!r}; allowed: {', '.join(sorted(READERS))}"
        )
    if not path.is_file():
        raise InputError(f"{key}: {path}: no such file")
    numbered = any(isinstance(column, int) for column in columns)
    if numbered and path.suffix not in _SEPARATED:
        raise InputError(f"{key}: {path}: its columns have names; give them in place of numbers")
    try:
        rows = READERS[path.suffix](path, numbered)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{key}: {path}: cannot be read: {reason}") from error
    if not rows:
        raise InputError(f"{key}: {path}: is empty")
    there = list(dict.fromkeys(name for row in rows for name in row))
    for column in columns:
        if column not in there:
            raise InputError(f"{key}: {path}: {_missing(column, there, path)}")
    return [{name: row.get(name) for name in there} for row in rows]


def _missing(column: str | int, there: list[Any], path: Path) -> str:
    if isinstance(column, int):
        return f"column {column}, but it has {len(there)}"
    named = [name if len(name) <= 40 else name[:39] + "\u2026" for name in there]
    hint = "; without a header, give columns by number" if path.suffix in _SEPARATED else ""
    return unknown("a column", column, named) + hint


def _parquet(path: Path, _numbered: bool) -> list[Row]:
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def _json_lines(path: Path, _numbered: bool) -> list[Row]:
    rows = []
    # Not splitlines: it also splits at characters that JSON allows in texts.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")
        rows.append(row)
    return rows


def _separated(path: Path, numbered: bool) -> list[Row]:
    tabs = path.suffix == ".tsv"
    dialect: dict[str, Any] = (
        {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    )
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [fields for fields in csv.reader(file, **dialect) if fields]
    if not lines:
        return []
    first = lines[0]
    names: list[Any] = list(range(1, len(first) + 1)) if numbered else first
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns are called {twice!r}")
    rows = lines if numbered else lines[1:]
    for number, fields in enumerate(rows, start=1):
        if len(fields) != len(names):
            raise ValueError(
                f"row {number} has {len(fields)} columns and the first line {len(names)}"
            )
    return [dict(zip(names, fields, strict=True)) for fields in rows]


_SEPARATED = (".csv", ".tsv")

READERS: dict[str, Callable[[Path, bool], list[Row]]] = {
    ".csv": _separated,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".tsv": _separated,
}
"""By the end of a file's name; takes whether the file has no header."""
