"""By which of a task's metrics and filters a search goes."""

from typing import Any

from mergelib.errors import InputError, unknown
from mergelib.sections.objectives import BenchmarkChoice


def metric_of(tasks: list[Any], objective: BenchmarkChoice, key: str) -> tuple[str, bool]:
    """The metric that counts, and whether more of it is better.

    Args:
        tasks: lm-eval's; several of a group.
        objective: may name one; else the first that all tasks have.
        key: the search file's key, for error messages.

    Raises:
        InputError: no such metric.
    """
    directions: list[dict[str, bool]] = [task.higher_is_better() for task in tasks]
    common = {name: up for name, up in directions[0].items() if all(name in d for d in directions)}
    if not common:
        raise InputError(f"{key}.benchmark: {objective.reference}: its tasks share no metric")
    metric = objective.metric or next(iter(common))
    if metric not in common:
        raise InputError(f"{key}.metric: " + unknown("a metric of the task", metric, common))
    return metric, bool(common[metric])


def filter_of(tasks: list[Any], objective: BenchmarkChoice, key: str) -> str:
    """The filter that answers pass before they count; arguments and errors as in `metric_of`."""
    names = [[pipeline.name for pipeline in task._filters] for task in tasks]
    common = [name for name in names[0] if all(name in of_task for of_task in names)]
    if not common:
        raise InputError(f"{key}.benchmark: {objective.reference}: its tasks share no filter")
    chosen = objective.filter or common[0]
    if chosen not in common:
        raise InputError(f"{key}.filter: " + unknown("a filter of the task", chosen, common))
    return str(chosen)


def check_answers_are_texts(tasks: list[Any], objective: BenchmarkChoice, key: str) -> None:
    """Refuse a language check or a scorer where there is no answer for it.

    Raises:
        InputError: names the key.
    """
    kinds = {str(task.OUTPUT_TYPE) for task in tasks}
    if objective.language is not None and kinds != {"generate_until"}:
        raise InputError(
            f"{key}.language: {objective.reference} is answered by {', '.join(sorted(kinds))}, "
            "and there is no written answer to check; leave it out"
        )
    if objective.scorer is not None and not kinds <= {"generate_until", "multiple_choice"}:
        raise InputError(
            f"{key}.scorer: {objective.reference} is answered by {', '.join(sorted(kinds))}, "
            "and there is no answer to score; leave it out"
        )
