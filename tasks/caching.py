"""Cache keys: what decides a result, by content, and a version for the arithmetic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.context import TaskRunContext

from tasks.results import tell_of_damage

ANSWER_VERSION = "answer-5"
"""Raise it when merging, answering or scoring changes what comes out, or how results are kept."""


def key_from(version: str, digest: Callable[..., str]) -> Callable[..., str]:
    """A Prefect cache key function: "<version>/<digest of the arguments>".

    Prefect asks for the key right before it looks for the result: a damaged one is told of then.

    Args:
        version: of the task's arithmetic; results of other versions are not found.
        digest: takes the task's arguments by name, `store` or a `run` in it among them, and returns
            a digest of what they stand for: file contents, never paths or object identities.
    """

    def key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
        name = f"{version}/{digest(**parameters)}"
        store = Path(parameters.get("store") or Path(parameters["run"]).parent)
        tell_of_damage(store.resolve() / ".mergeflow" / "results" / name)
        return name

    return key
