"""When a model's answers are asked for once more: after a failure of a kind that passes."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from mergelib.transient import is_transient

RETRIES = 3
DELAYS = exponential_backoff(2)
"""Gives the seconds before each."""


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a task run failed with an error that may be gone in a moment."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)
