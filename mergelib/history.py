"""The tables of a search's generations; a process reads each of them once."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mergelib.files import FileState, file_state
from mergelib.runs import Run


def generations_of(run: Run) -> list[pa.Table]:
    """The tables of all finished generations, the first one first.

    What is shown of a search is made of them again and again while it goes on.
    """
    return _read(run, "generations", range(run.finished_generations()))


def responses_of(run: Run, generations: Iterable[int]) -> pa.Table:
    """The responses of some generations' candidates."""
    return pa.concat_tables(_read(run, "responses", generations))


def _read(run: Run, folder: str, generations: Iterable[int]) -> list[pa.Table]:
    files = [run.path(f"{folder}/{number:04d}.parquet") for number in generations]
    before = _known.get(folder, {})
    tables = {file: _current(file, before.get(file)) for file in files}
    _known[folder] = tables
    return [table.content for table in tables.values()]


class _Table(NamedTuple):
    """A table, and which file it was read from."""

    state: FileState
    content: pa.Table


def _current(file: Path, known: _Table | None) -> _Table:
    state = file_state(file)
    return known if known and known.state == state else _Table(state, pq.read_table(file))


_known: dict[str, dict[Path, _Table]] = {}
"""By folder, of the last run and generations that were asked for."""
