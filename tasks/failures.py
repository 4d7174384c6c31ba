"""Candidates that fail: kept with their tracebacks; too many in a row stop the search."""

import traceback
from collections import Counter
from pathlib import Path

from mergelib.errors import SearchError
from mergelib.evaluation import Evaluation, nothing_done
from mergelib.files import write_text
from mergelib.runs import Run

_in_a_row: Counter[Path] = Counter()
"""How many of each run's merges have failed one after the other in this process: a run that goes on
later, its cause mended, begins to count anew."""


def evaluation_of(error: BaseException) -> Evaluation:
    """What an evaluation that raised counts as."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    trace = "".join(traceback.format_exception(error))
    return {**nothing_done("failed", reason), "traceback": trace}


def checked(run: Run, model: str, label: str, evaluation: Evaluation) -> Evaluation:
    """Write down an evaluation that has failed; pass on any other.

    Args:
        run: the run.
        model: the digest of the model.
        label: what the evaluation is called in Prefect's UI.
        evaluation: what came of it.

    Returns:
        The evaluation; the reason of a failed one names the file with its traceback.

    Raises:
        SearchError: it is the last straw, by `evolution.stop.failures`; or it is of an endpoint or
            the base, without whose answers no search can be.
    """
    merged = model not in run.workbench().fingerprints.values()
    if evaluation["status"] == "ok":
        if merged:
            _in_a_row.pop(run.folder, None)
        return evaluation
    reason, file = evaluation["reason"], f"failures/{model[:16]}.txt"
    write_text(run.path(file), f"{label}\n{reason}\n\n{evaluation.get('traceback', '')}")
    if not merged:
        raise SearchError(
            f"{label} could not answer: {reason}; see {run.path(file)}; the same command tries "
            "again"
        )
    _in_a_row[run.folder] += 1
    limit = run.search.evolution.stop.failures
    if limit is not None and _in_a_row[run.folder] >= limit:
        del _in_a_row[run.folder]
        raise SearchError(
            f"{limit} merges in a row failed (evolution.stop.failures), the last one with: "
            f"{reason}; see {run.path('failures')}; mend the cause or raise the limit, and the "
            "same command goes on"
        )
    return {**evaluation, "reason": f"{reason}; see {file}"}
