import errno
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mergelib.errors import InputError, MergeflowError, SearchError
from mergelib.files import (
    EnoughRoom,
    NotFull,
    append_line,
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


def test_folders_made_for_one_that_cannot_be_filled_are_taken_away(tmp_path):
    (tmp_path / "there").mkdir()

    def fill(partial):
        assert partial.is_dir()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_folder(tmp_path / "there" / "a" / "b" / "folder", fill)
    assert list((tmp_path / "there").iterdir()) == []

    def fill_beside(partial):
        (partial.parent.parent / "anothers.txt").write_text("kept")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_folder(tmp_path / "there" / "a" / "b" / "folder", fill_beside)
    assert names(tmp_path / "there" / "a") == ["anothers.txt"]


@pytest.fixture
def free(tmp_path, monkeypatch):
    """Sets how much is free: no test can change it."""
    usage = shutil.disk_usage(tmp_path)
    return lambda size: monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=size)
    )


@pytest.mark.parametrize(
    ("size", "said"), [(999, "999 bytes"), (1500, "1.5 kB"), (2e6, "2.0 MB"), (7.25e9, "7.2 GB")]
)
def test_a_folder_that_will_not_fit_is_refused(size, said, free, tmp_path):
    folder = tmp_path / "new" / "folder"
    free(int(size) - 1)
    message = f"^{folder}: No space left on device: about {said} are needed and .* are free; make"
    with pytest.raises(InputError, match=message), EnoughRoom(folder, int(size)):
        pytest.fail("it is not begun")
    free(int(size))
    with EnoughRoom(folder, int(size)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), os.strerror(errno.ENOSPC)),
        (OSError(errno.EDQUOT, "quota"), os.strerror(errno.EDQUOT)),
        (Exception("File too large (os error 27)"), os.strerror(errno.EFBIG)),
        (ValueError("Error while serializing: I/O error: (os error 28)"), "No space left"),
    ],
)
def test_a_disk_that_fills_up_is_told_in_one_line(error, reason, tmp_path):
    """The last two are the words of libraries written in Rust."""
    with (
        pytest.raises(InputError, match=f"{tmp_path}: {reason}") as caught,
        EnoughRoom(tmp_path, 1),
    ):
        raise error
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "no"), ValueError("28"), KeyboardInterrupt()]
)
def test_other_errors_pass(error, tmp_path):
    with pytest.raises(type(error)) as caught, EnoughRoom(tmp_path, 1):
        raise error
    assert caught.value is error


# Lines, and a full disk ---------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_lines_are_added_whole(tmp_path):
    path = tmp_path / "lines"
    append_line(path, b"one")
    append_line(path, b"two")
    assert path.read_bytes() == b"one\ntwo\n"
    path.write_bytes(b"one\nha")
    append_line(path, b"two")
    assert path.read_bytes() == b"one\nha\ntwo\n"


def test_a_full_disk_is_told_in_one_line_and_nothing_is_half_written(small_disk):
    big = "x" * 90_000
    for write in (
        lambda: write_text(small_disk / "file", big),
        lambda: write_table(small_disk / "file", pa.table({"a": [os.urandom(90_000)]})),
        lambda: append_line(small_disk / "file", big.encode()),
    ):
        with pytest.raises(InputError) as caught:
            write()
        said = str(caught.value)
        assert said.startswith(f"{small_disk / 'file'}: No space left on device: ")
        assert said.endswith(" are free; make room, and the same command goes on")
        assert sum(file.stat().st_size for file in small_disk.iterdir()) == 0


def test_a_line_that_does_not_fit_leaves_the_others(small_disk):
    path = small_disk / "lines"
    append_line(path, b"one")
    with pytest.raises(InputError, match="No space left"):
        append_line(path, b"x" * 90_000)
    assert path.read_bytes() == b"one\n"
    append_line(path, b"two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_what_failed_for_want_of_room_is_told_by_the_room(small_disk):
    with (
        pytest.raises(InputError, match="No space left on device: .* are free"),
        NotFull(small_disk),
    ):
        raise AssertionError("64 kB are too few to begin with")


def test_where_there_is_room_an_error_stays_what_it_is(tmp_path):
    for error in (ValueError("v"), InputError("i"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, NotFull(tmp_path):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("error", "told"),
    [(RuntimeError("database"), "10 bytes are free"), (SearchError("hopeless"), "hopeless")],
)
def test_a_disk_that_runs_full_in_between_is_told(error, told, tmp_path, monkeypatch):
    guard = NotFull(tmp_path)
    guard.__enter__()
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(MergeflowError, match=told):
        raise_within(guard, error)


def raise_within(guard, error):
    guard.__exit__(type(error), error, None)
    raise error
