"""What a person at the terminal sees while a search runs: a bar, and a line for each generation.

Unless `show` was called the lines go to the logger `mergeflow`, as under a worker, where Prefect's
UI has them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from mergelib.goals import told

logger = logging.getLogger("mergeflow")
"""Its lines are the flow run's log; `prefect.yaml` names it in PREFECT_LOGGING_EXTRA_LOGGERS."""
logger.setLevel(logging.INFO)

_FIRST, _EVERY = 1, 5
"""Which generations get a line of their own where there is no terminal to draw a bar on."""


class SearchProgress:
    """One bar that counts evaluations."""

    def __init__(self) -> None:
        """Begin without a terminal."""
        self._console: Console | None = None
        self._bar: Progress | None = None

    def __reduce__(self) -> str:
        """Name it to another process, which has its own: flows are sent to workers."""
        return "progress"

    def show(self) -> None:
        """From now on, draw on standard error."""
        self._console = Console(stderr=True, highlight=False)

    @contextmanager
    def of(self, name: str, evaluations: int) -> Iterator[None]:
        """Draw while a search runs.

        Args:
            name: the search's name.
            evaluations: how many are still to be done.
        """
        if self._console is None:
            yield
            return
        columns = (
            SpinnerColumn(),
            TextColumn(name),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        live = self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=not live) as bar:
            bar.add_task("", total=evaluations, completed=-1)
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def at(self, what: str) -> None:
        """The next evaluation begins."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])
            self._bar.update(self._bar.task_ids[0], description=what)

    def say(self, line: str) -> None:
        """Leave a line above the bar, or in the log."""
        if self._console is not None:
            self._console.print(line)
        else:
            logger.info(line.strip())

    def generation(self, number: int, of: int, best: float, seconds: float) -> None:
        """A generation is finished; where output is piped not each one gets a line."""
        live = self._console is None or self._console.is_terminal
        if live or number + 1 in (_FIRST, of) or (number + 1) % _EVERY == 0:
            self.say(f"  generation {number + 1} of {of}: best {told(best)} ({seconds:.0f} s)")


progress = SearchProgress()
"""The process's one terminal."""
