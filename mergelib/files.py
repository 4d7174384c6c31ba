"""Atomic writes: a reader sees the old file or the new one, never half of one; and full disks."""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mergelib.errors import InputError, MergeflowError

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

_SCARCE = 1_000_000
"""With fewer bytes than this, a disk counts as full."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, flush it to the disk, and rename it into place.

    Args:
        path: where the file shall be; its folder is made if it is not there.
        write: writes the whole content to the path that it is given.

    Raises:
        InputError: the disk is full; nothing has changed then.
    """
    partial = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _flush(partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if (full := full_disk(path, error)) is not None:
            raise full from error
        raise
    finally:
        partial.unlink(missing_ok=True)
    _flush(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, whole or not at all; half a line that is there is ended first.

    Raises:
        InputError: the disk is full; nothing has changed then.
    """
    with path.open("ab+", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        if before:
            file.seek(-1, os.SEEK_END)
            # A process that was killed while writing may have left half a line.
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            written = file.write(line + b"\n")
            if written != len(line) + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            file.truncate(before)
            if (full := full_disk(path, error)) is not None:
                raise full from error
            raise


def full_disk(path: Path, error: BaseException) -> InputError | None:
    """The error of a full disk in one line, with what is free; None for any other error.

    Args:
        path: what was being written.
        error: what came of it.
    """
    number = _error_number(error)
    return _full_line(path, number) if number in _FULL else None


def _full_line(path: Path, number: int) -> InputError:
    return InputError(
        f"{path}: {os.strerror(number)}: {amount(_free(path))} are free; make room, and the same "
        "command goes on"
    )


class NotFull:
    """Around work whose libraries do not say that it failed because the disk is full."""

    def __init__(self, folder: Path) -> None:
        """Say where the work is kept."""
        self._folder = folder

    def __enter__(self) -> None:
        """See whether there is room for anything at all.

        Raises:
            InputError: there is not.
        """
        self._check()

    def _check(self) -> None:
        if _free(self._folder / "any") < _SCARCE:
            raise _full_line(self._folder, errno.ENOSPC)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Name the full disk in the place of what it led to.

        Raises:
            InputError: there was an error that is none of this project's, and there is no room.
        """
        told = (MergeflowError, KeyboardInterrupt, SystemExit)
        if error is not None and not isinstance(error, told):
            self._check()


FileState = tuple[int, int, int]


def file_state(path: Path) -> FileState:
    """What tells one state of a file from another: files are replaced, never written into."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it holds something else.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(damaged(path)) from error


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        InputError: it holds something else.
    """
    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise InputError(damaged(path)) from error


def damaged(path: Path) -> str:
    """What is said of a file that this project wrote and cannot read."""
    return f"{path}: is damaged; delete it, and the same command makes it anew"


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically."""
    write_atomically(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a folder beside its place and rename it into place; one that is there is replaced.

    Args:
        folder: where it shall be; the folders above it are made if they are not there, and taken
            away again if it cannot be filled.
        fill: writes the whole content into the folder that it is given.
    """
    missing = [above for above in folder.parents if not above.exists()]
    partial, old = _beside(folder), _beside(folder)
    try:
        partial.mkdir(parents=True)
        fill(partial)
        for file in (partial, *partial.rglob("*")):
            _flush(file)
        # Renamed away before it is deleted, so that a reader never sees half of it.
        if folder.exists():
            folder.replace(old)
        partial.replace(folder)
    finally:
        if old.exists() and not folder.exists():
            old.replace(folder)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        if not folder.exists():
            for above in missing:
                # Others may have written into it in the meantime.
                with suppress(OSError):
                    above.rmdir()
    _flush(folder.parent)


class EnoughRoom:
    """Around the writing of a folder: refuses one that will not fit, and tells of a full disk.

    It is a class because the tokenizers library tells of a full disk by a bare Exception: a context
    manager's exit is given it without catching all others.
    """

    def __init__(self, folder: Path, needed: int) -> None:
        """Say what is to be written.

        Args:
            folder: the folder; it and those above it need not be there yet.
            needed: about how many bytes will be written.
        """
        self._folder = folder
        self._needed = needed

    def __enter__(self) -> None:
        """Compare what is needed with what is free.

        Raises:
            InputError: less is free.
        """
        if _free(self._folder) < self._needed:
            raise InputError(self._line(os.strerror(errno.ENOSPC)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Turn the error of a full disk into one line.

        Raises:
            InputError: the disk is full, a quota is used up, or a file may not grow so large.
        """
        number = _error_number(error)
        if number in _FULL:
            raise InputError(self._line(os.strerror(number))) from error

    def _line(self, reason: str) -> str:
        return (
            f"{self._folder}: {reason}: about {amount(self._needed)} are needed and "
            f"{amount(_free(self._folder))} are free; make room, or write to another disk"
        )


def _error_number(error: BaseException | None) -> int | None:
    """The operating system's number of an error, also of one from a library written in Rust."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


def _free(path: Path) -> int:
    """How many bytes are free where a file or folder is, or is to be."""
    above = next(a for a in path.absolute().parents if a.is_dir())
    return shutil.disk_usage(above).free


def amount(size: int) -> str:
    """A number of bytes, for people."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _beside(path: Path) -> Path:
    """A name that no other thread, process or machine on the same disk writes to."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")


def _flush(path: Path) -> None:
    """Have the operating system put a file's, or a folder's, content on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
