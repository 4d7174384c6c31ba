import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mergelib.files import (
    read_json,
    write_atomically,
    write_folder,
    write_json,
    write_table,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_into_a_folder_that_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "text.txt"
    write_text(path, "日本語\n")
    assert path.read_bytes() == "日本語\n".encode()
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(path.parent) == ["text.txt"]


def test_a_writer_that_raises_leaves_the_old_file(tmp_path):
    path = tmp_path / "text.txt"
    write_text(path, "old")

    def write(partial):
        partial.write_text("half of the n")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["text.txt"]


def test_the_old_file_is_there_while_the_new_one_is_written(tmp_path):
    path = tmp_path / "text.txt"
    write_text(path, "old")

    def write(partial):
        assert partial.parent == path.parent
        partial.write_text("new")
        assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "new"


def test_json_comes_back_and_nan_is_refused(tmp_path):
    path = tmp_path / "value.json"
    value = {"numbers": [1, 0.1, -1e-300], "text": "日本語", "nothing": None}
    write_json(path, value)
    assert read_json(path) == value
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"score": float("nan")})
    assert read_json(path) == value
    assert names(tmp_path) == ["value.json"]


def test_tables_come_back(tmp_path):
    table = pa.table({"a": [1, None], "b": [[0.5], []]})
    write_table(tmp_path / "t.parquet", table)
    assert pq.read_table(tmp_path / "t.parquet").equals(table)
    assert names(tmp_path) == ["t.parquet"]


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "text.txt"
    both = threading.Barrier(2)
    failed = []

    def run(text):
        def write(partial):
            partial.write_text(text)
            both.wait(10)
            assert partial.read_text() == text

        try:
            write_atomically(path, write)
        except (OSError, AssertionError) as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert path.read_text() in ("one", "two")
    assert names(tmp_path) == ["text.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "made" / "folder"

    def fill_first(partial):
        (partial / "old.txt").write_text("old")

    def fill_second(partial):
        assert (folder / "old.txt").read_text() == "old"
        (partial / "inner").mkdir()
        (partial / "inner" / "new.txt").write_text("new")

    write_folder(folder, fill_first)
    write_folder(folder, fill_second)
    assert names(folder) == ["inner"]
    assert (folder / "inner" / "new.txt").read_text() == "new"
    assert names(tmp_path / "made") == ["folder"]


def test_a_folder_that_cannot_be_filled_leaves_the_old_one(tmp_path):
    folder = tmp_path / "folder"
    write_folder(folder, lambda partial: (partial / "old.txt").write_text("old"))

    def fill(partial):
        (partial / "new.txt").write_text("new")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_folder(folder, fill)
    assert names(folder) == ["old.txt"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    """A failing rename, which cannot be caused between two renames that work."""
    folder = tmp_path / "folder"
    write_folder(folder, lambda partial: (partial / "old.txt").write_text("old"))
    replace = Path.replace

    def replace_but_not_with_the_new(path, target):
        if (path / "new.txt").exists():
            raise OSError("stale file handle")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_but_not_with_the_new)
    with pytest.raises(OSError, match="stale file handle"):
        write_folder(folder, lambda partial: (partial / "new.txt").write_text("new"))
    assert names(folder) == ["old.txt"]
    assert names(tmp_path) == ["folder"]
