"""Compare: a model answers a part of a benchmark, once for all comparisons of a store."""

from pathlib import Path

from prefect import task

from mergelib.comparing import Contest, Part, open_contest
from mergelib.evaluation import Evaluation
from mergelib.runs import Run
from mergelib.sections.comparison import Comparison
from mergelib.tables import Answered
from tasks.caching import ANSWER_VERSION, key_from
from tasks.naming import name_by_score
from tasks.results import SealedEvaluation, hold
from tasks.retries import DELAYS, RETRIES, may_pass


def _digest(run: str, comparison: Comparison, part: Part, label: str) -> str:
    return open_contest(comparison, Run(Path(run)).models).part_digest(part)


@task(
    task_run_name="{label}",
    cache_key_fn=key_from(ANSWER_VERSION, _digest),
    persist_result=True,
    result_serializer=SealedEvaluation(),
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=may_pass,
)
def answer_part(run: str, comparison: Comparison, part: Part, label: str) -> Evaluation:
    """Let a model answer some items of a benchmark.

    Args:
        run: the comparison's folder; it need not be there yet.
        comparison: what is compared.
        part: which model and items.
        label: what Prefect's UI calls the task run.
    """
    evaluation = open_contest(comparison, Run(Path(run)).models).answer(part)
    name_by_score(evaluation)
    return evaluation


def answered_part(contest: Contest, comparison: Comparison, run: Run, part: Part) -> Answered:
    """Answer, or find the answer in the store.

    Raises:
        InputError: the disk is full.
        KeyboardInterrupt: the comparison was interrupted or cancelled.
    """
    number = contest.pools[part.benchmark].index(
        contest.benchmarks[part.benchmark].find(part.items[:1])[0]
    )
    label = f"{contest.names[part.model]}, {part.benchmark} from {number + 1} on"
    kept = answer_part.with_options(result_storage=run.results)
    state = kept(str(run.folder), comparison, part, label, return_state=True)
    if not (state.is_completed() or state.is_failed()):
        # Prefect turns Ctrl-C and a cancellation into states; here they end the comparison.
        raise KeyboardInterrupt
    fingerprint = contest.checkpoints[part.model].fingerprint
    evaluation: Evaluation = state.result()
    if state.name != "Cached":
        hold(run.results / ANSWER_VERSION / contest.part_digest(part), state.data)
    asked = {part.benchmark: part.items}
    return Answered(fingerprint, asked, evaluation, state.name == "Cached")
