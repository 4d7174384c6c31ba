"""A journal is read once, then what is appended: always what reading it whole would give."""

import json
import os
from pathlib import Path

import pytest

from mergelib.journal import journal_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(json.dumps({"number": n}) + "\n" for n in range(3)))
    return path


def _numbers(file: Path) -> list[int]:
    return [event["number"] for event in journal_of(file).events]


def test_what_is_appended_is_read_and_nothing_else(file: Path) -> None:
    first = journal_of(file)
    before = list(first.events)
    with file.open("a") as more:
        more.write('{"number": 3}\n')
    assert journal_of(file) is first
    assert [event["number"] for event in first.events] == [0, 1, 2, 3]
    assert all(old is now for old, now in zip(before, first.events, strict=False))


def test_half_a_line_is_read_when_it_is_whole(file: Path) -> None:
    assert _numbers(file) == [0, 1, 2]
    with file.open("a") as more:
        more.write('{"num')
    assert _numbers(file) == [0, 1, 2]
    with file.open("a") as more:
        more.write('ber": 3}\n{"of a killed pro\n{"number": 4}\n')
    assert _numbers(file) == [0, 1, 2, 3, 4]


def test_another_file_in_its_place_is_read_whole(file: Path) -> None:
    assert _numbers(file) == [0, 1, 2]
    longer = "".join(json.dumps({"number": n}) + "\n" for n in range(10, 20))
    other = file.with_suffix(".other")
    other.write_text(longer)
    os.replace(other, file)
    assert _numbers(file) == list(range(10, 20))
    file.write_text('{"number": 7}\n')
    assert _numbers(file) == [7]
    file.unlink()
    assert _numbers(file) == []


def test_two_journals_are_not_mistaken_for_one_another(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"number": 9}\n')
    assert [_numbers(file), _numbers(other), _numbers(file)] == [[0, 1, 2], [9], [0, 1, 2]]
