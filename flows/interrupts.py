"""Telling an interruption from an error, also where Prefect stumbles over it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from prefect.exceptions import TerminationSignal

from mergelib.files import NotFull


@contextmanager
def resumable(store: Path) -> Iterator[None]:
    """Around a flow that a command runs, and that the same command goes on with.

    Args:
        store: folder of run folders.

    Raises:
        InputError: the disk is full.
        typer.Exit: it was interrupted; the terminal has been told how to go on.
    """
    try:
        with NotFull(store):
            yield
    except BaseException as error:
        if not was_interrupted(error):
            raise
        sys.stderr.write("interrupted; the same command goes on where it stopped\n")
        raise typer.Exit(130) from None


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an error is an interruption, or was raised while one was being handled.

    A signal that arrives while Prefect sets up a task run makes it raise a ValueError.

    Args:
        error: what came out of a flow.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt | TerminationSignal):
            return True
        error = error.__context__
    return False
