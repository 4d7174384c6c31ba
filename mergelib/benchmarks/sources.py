"""Where a benchmark's items come from: an lm-eval task by name or file, or a group of them."""

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml
from lm_eval.tasks import TaskManager

# Registers the filters of this project, which task files may name too.
from mergelib.benchmarks import choice_answers as _choice_answers  # noqa: F401
from mergelib.benchmarks import numbers as _numbers  # noqa: F401
from mergelib.errors import InputError

FAULTS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    AssertionError,
    yaml.YAMLError,
    jinja2.TemplateError,
)
"""What a task that is not there or not whole makes lm-eval, datasets or its own code raise."""


class Source(NamedTuple):
    """Tasks whose documents become items.

    Attributes:
        name: the benchmark's.
        tasks: lm-eval's tasks by name; several of a group.
        shown: documents, by split and position, that are few-shot examples and not to be asked.
        notes: what is no obstacle and yet worth telling, a line each.
    """

    name: str
    tasks: dict[str, Any]
    shown: Collection[tuple[str, int]]
    notes: list[str]


def lm_eval_task(reference: str, key: str) -> Source:
    """Load a task or a group of lm-eval.

    Args:
        reference: a YAML file, or a name among lm-eval's own.
        key: the search file's key, for error messages.

    Raises:
        InputError: there is none, or it cannot be loaded.
    """
    path = Path(reference)
    if path.suffix in (".yaml", ".yml") and not path.is_file():
        raise InputError(f"{key}: {reference!r}: no such file")
    try:
        if path.is_file():
            manager, spec = _manager_for(path)
        else:
            manager, spec = _manager_of_all(), reference
            if reference not in manager.task_index:
                raise InputError(
                    f"{key}: {reference!r}: no such file"
                    if "/" in reference
                    else f"{key}: {reference!r} is neither a file nor a task of lm-eval; "
                    "`lm_eval ls tasks` lists them"
                )
        loaded = manager.load([spec])
    except FAULTS as error:
        raise InputError(
            f"{key}: {reference}: lm-eval cannot load this task: {in_one_line(error)}"
        ) from error
    tasks = dict(loaded["tasks"])
    if not tasks:
        raise InputError(f"{key}: {reference}: is a group without tasks")
    groups = list(loaded.get("groups") or ())
    alone = len(tasks) == 1 and not groups
    name = next(iter(tasks)) if alone else (groups[0] if groups else path.stem)
    return Source(name, tasks, (), [])


def in_one_line(error: BaseException) -> str:
    """What an error says, on one line of at most 200 characters."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, IndexError) and "string index" in said:
        return f"{said} (an empty choice in its first document does this)"
    return said


@cache
def _manager_of_all() -> TaskManager:
    """With the index of lm-eval's own tasks, which takes seconds to read."""
    return TaskManager()


def _manager_for(path: Path) -> tuple[TaskManager, str]:
    """One that knows what a task file needs, and what it loads the file by.

    lm-eval loads a group by its name, and finds the group and its members beside the file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        content = None  # a task file with functions, which lm-eval reads itself
    if not isinstance(content, dict) or not isinstance(content.get("task"), list):
        return TaskManager(include_defaults=False), str(path)
    manager = TaskManager(include_path=str(path.parent), include_defaults=False)
    names = [m if isinstance(m, str) else m.get("task") for m in content["task"]]
    if not all(name in manager.task_index for name in names if isinstance(name, str)):
        manager = TaskManager(include_path=str(path.parent))
    return manager, str(content.get("group"))
