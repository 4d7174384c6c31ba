"""Tables that stay what they are are read once; what has changed is read again."""

from pathlib import Path

import pyarrow as pa

from mergelib.history import generations_of
from mergelib.runs import Run


def _finish(run: Run, number: int, value: int) -> None:
    run.write_generation(number, pa.table({"value": [value]}))
    run.write_state(number, {}, {})


def _values(run: Run) -> list[int]:
    return [table["value"][0].as_py() for table in generations_of(run)]


def test_each_table_is_read_once(tmp_path: Path) -> None:
    run, before = Run(tmp_path / "run"), list[pa.Table]()
    assert generations_of(run) == []
    for number in range(3):
        _finish(run, number, number)
        now = generations_of(run)
        assert all(table is known for table, known in zip(now, before, strict=False))
        before = now
    assert _values(run) == [0, 1, 2]


def test_what_is_told_is_what_is_there(tmp_path: Path) -> None:
    run, other = Run(tmp_path / "run"), Run(tmp_path / "other")
    for number in range(3):
        _finish(run, number, number)
        _finish(other, number, 10 + number)
    assert [_values(run), _values(other), _values(run)] == [[0, 1, 2], [10, 11, 12], [0, 1, 2]]
    # As where a run was sent back to its second generation.
    for number in (1, 2):
        run.path(f"state/{number:04d}.json").unlink()
    assert _values(run) == [0]
    _finish(run, 1, 7)
    assert _values(run) == [0, 7]
