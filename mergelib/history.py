"""The tables of a search's finished generations; a process reads each of them once."""

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
    files = [
        run.path(f"generations/{number:04d}.parquet")
        for number in range(run.finished_generations())
    ]
    tables = {file: _read(file) for file in files}
    _known.clear()
    _known.update(tables)
    return [table.content for table in tables.values()]


def _read(file: Path) -> "_Table":
    state = file_state(file)
    known = _known.get(file)
    return known if known and known.state == state else _Table(state, pq.read_table(file))


class _Table(NamedTuple):
    """A table, and which file it was read from."""

    state: FileState
    content: pa.Table


_known: dict[Path, _Table] = {}
"""Of the last run that was asked for."""
