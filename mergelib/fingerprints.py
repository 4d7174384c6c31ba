"""Digests of large files, remembered so that each is read through once and not at each resume."""

import hashlib
import os
from pathlib import Path
from typing import Any

from mergelib.errors import InputError
from mergelib.files import read_json, write_json


def file_digest(file: Path, cache: Path | None = None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Args:
        file: what to digest.
        cache: the folder that remembers digests, by a file's resolved path, size, time of change
            and inode; None: nothing is remembered. It never is the file's own folder.
    """
    if cache is None:
        return _digest(file)
    resolved = file.resolve()
    # One note for each file: two processes that write at once do not undo each other's.
    name = hashlib.sha256(os.fsencode(resolved)).hexdigest()
    note = cache / "fingerprints" / f"{name}.json"
    before = _state(resolved)
    known = _read(note)
    if known.items() >= before.items() and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    digest = _digest(resolved)
    # A file that changed while it was read has a digest of neither state.
    if _state(resolved) == before:
        write_json(note, {**before, "sha256": digest})
    return digest


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _state(file: Path) -> dict[str, Any]:
    """What changes whenever a file's content does."""
    status = file.stat()
    return {
        # As it may hold bytes that are no text, the path is written as Python would.
        "path": ascii(str(file)),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "inode": status.st_ino,
    }


def _read(note: Path) -> dict[str, Any]:
    """A note's content; nothing where there is none, or it is damaged."""
    try:
        content = read_json(note)
    except (FileNotFoundError, InputError):
        return {}
    return content if isinstance(content, dict) else {}
