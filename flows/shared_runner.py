"""One task runner for all flows of a search: started once, and joined by each of them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner


@contextmanager
def shared(runner: TaskRunner[Any]) -> Iterator[TaskRunner[Any]]:
    """Start a task runner for all flows that are given what this yields, and end it after them."""
    with runner:
        yield _Shared(runner)


class _Shared(TaskRunner[Any]):
    """Hands on to a task runner that is running.

    Prefect duplicates, starts and ends a flow's task runner with each of its runs. A search has a
    flow run for each generation: each would connect to the workers anew, and end what is out still.
    """

    def __init__(self, runner: TaskRunner[Any]) -> None:
        super().__init__()
        self._runner = runner

    def duplicate(self) -> "_Shared":
        return self

    def __enter__(self) -> "_Shared":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> PrefectFuture[Any]:
        return self._runner.submit(task, parameters, wait_for, dependencies)

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels to the workers with the flow; they are not to connect to one another.
        return ThreadPoolTaskRunner, ()
