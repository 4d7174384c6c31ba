"""Atomic writes: a reader sees the old file or the new one, never half of one."""

import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, flush it to the disk, and rename it into place.

    Args:
        path: where the file shall be; its folder is made if it is not there.
        write: writes the whole content to the path that it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        write(partial)
        _flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically."""
    write_atomically(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a folder beside its place and rename it into place; one that is there is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = _beside(folder), _beside(folder)
    partial.mkdir()
    try:
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
    _flush(folder.parent)


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
