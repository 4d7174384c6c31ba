"""Task runs are named by their model, and by what came of them once they are done.

The name travels with the run's states, so that it costs no request.
"""

from pathlib import Path
from typing import Any

from prefect.context import TaskRunContext

from mergelib.evaluation import Evaluation
from mergelib.runs import Run
from mergelib.story import in_name, score_in_name


def named_by_model(parameters: dict[str, Any]) -> str:
    """What the task run of an evaluation is called while it goes on: "2.5, 3f2a91c0"."""
    bench = Run(Path(parameters["run"])).workbench()
    return in_name(parameters["label"], bench.model_digest(parameters["model"]))


def name_by_score(evaluation: Evaluation) -> None:
    """Add what came of it to the name of the task run that is running; one that is found has none.

    Args:
        evaluation: its result.
    """
    context = TaskRunContext.get()
    if context is not None:
        context.task_run.name += score_in_name(evaluation["responses"])
