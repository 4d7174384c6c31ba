"""The journal of a run: one line for each evaluation that was finished or found.

A process reads a journal once, and after that only what has been appended: a search asks for it
after each generation, and a long one's has tens of thousands of lines.
"""

import json
from pathlib import Path
from typing import Any

_TAIL = 4096
"""Bytes before the place where reading stopped that tell a longer journal from another one."""


class Journal:
    """What has been read of a journal.

    Attributes:
        events: its whole lines, oldest first.
    """

    def __init__(self, file: Path) -> None:
        """Name a journal; nothing is read yet."""
        self.events: list[dict[str, Any]] = []
        self._file, self._end, self._tail = file, 0, b""

    def read_on(self) -> bool:
        """Read what has been appended; False if the file is another one than before."""
        with self._file.open("rb") as file:
            file.seek(self._end - len(self._tail))
            if file.read(len(self._tail)) != self._tail:
                return False
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                self.events.append(json.loads(line))
            except ValueError:
                continue  # half a line, of a process that was killed
        self._end += len(whole)
        self._tail = (self._tail + whole)[-_TAIL:]
        return True


def journal_of(file: Path) -> Journal:
    """The journal in a file as it is now.

    Returns:
        The same object as the last time, with more events, as long as the file only grows.
    """
    if not file.exists():
        return Journal(file)
    known = _last.get(file)
    if known is not None and known.read_on():
        return known
    _last.clear()
    journal = _last[file] = Journal(file)
    journal.read_on()
    return journal


_last: dict[Path, Journal] = {}
"""The journal that was last asked for."""
