"""Telling an interruption from an error, also where Prefect stumbles over it."""

from prefect.exceptions import TerminationSignal


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
