"""Merge a model in memory and let it answer: the one task that costs."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State

from mergelib.errors import InputError
from mergelib.evaluation import Asked, Evaluation
from mergelib.runs import Run
from mergelib.tables import Answered
from tasks.caching import ANSWER_VERSION, key_from
from tasks.failures import checked, evaluation_of
from tasks.naming import name_by_score, named_by_model
from tasks.results import SealedEvaluation, hold
from tasks.retries import DELAYS, RETRIES, may_pass


def _digest(run: str, model: str, asked: Asked, label: str) -> str:
    return Run(Path(run)).workbench().evaluation_digest(model, asked)


@task(
    task_run_name=named_by_model,
    cache_key_fn=key_from(ANSWER_VERSION, _digest),
    persist_result=True,
    result_serializer=SealedEvaluation(),
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=may_pass,
)
def answer(run: str, model: str, asked: Asked, label: str) -> Evaluation:
    """Let a model answer items.

    Args:
        run: the run folder.
        model: a checkpoint's reference, or a recipe's YAML.
        asked: the items of each benchmark.
        label: what Prefect's UI calls the task run.
    """
    evaluation = Run(Path(run)).workbench().evaluate(model, asked)
    name_by_score(evaluation)
    return evaluation


def answered(run: Run, model: str, asked: Asked, label: str, stage: str) -> Answered:
    """Answer, or find the answer in the store, and enter it in the run's journal.

    Args:
        run: the run.
        model: a checkpoint's reference, or a recipe's YAML.
        asked: the items of each benchmark.
        label: what Prefect's UI calls the task run.
        stage: what the ledger adds its cost to.

    An evaluation that raises (a GPU out of memory even after retries, say) counts as failed in this
    run and is not kept: it is tried again when it is next needed.

    Raises:
        InputError: the models or benchmarks do not fit the search, or the disk is full.
        SearchError: too many merges in a row failed, or an endpoint did.
        KeyboardInterrupt: the search was interrupted or cancelled.
    """
    state = answer(str(run.folder), model, asked, label, return_state=True)
    return entered(run, model, asked, label, stage, state)


def entered(
    run: Run, model: str, asked: Asked, label: str, stage: str, state: State[Any]
) -> Answered:
    """Enter in the run's journal what came of letting a model answer; see `answered`.

    Raises:
        InputError: also if a worker's `auto` settings have come out otherwise than here.
    """
    bench = run.workbench()
    digest, reused = bench.model_digest(model), state.name == "Cached"
    if state.is_completed():
        evaluation: Evaluation = state.result()
        key = bench.evaluation_digest(model, asked)
        if Path(state.data.metadata.storage_key).name != key:
            raise InputError(
                "compute.cluster: the workers answer on another device or in another type than "
                f"this process ({bench.device}, {bench.dtype}), and its run would not find their "
                "answers again; give a compute.device and a compute.dtype that both have, or start "
                "the command on a machine like theirs"
            )
        if not reused:
            hold(run.results / ANSWER_VERSION / key, state.data)
        run.journal(
            {
                "key": key,
                "model": digest,
                "label": label,
                "stage": stage,
                "reused": reused,
                "items": evaluation["items"],
                "tokens": evaluation["tokens"],
                "flops": evaluation["flops"],
                "seconds": evaluation["seconds_merge"] + evaluation["seconds_answer"],
            }
        )
        return Answered(digest, asked, checked(run, digest, label, evaluation), reused)
    if not state.is_failed():
        # Prefect turns Ctrl-C and a cancellation into states; here they end the search.
        raise KeyboardInterrupt
    error = state.result(raise_on_failure=False)
    if isinstance(error, InputError):
        raise error
    evaluation = checked(run, digest, label, evaluation_of(error))
    return Answered(digest, asked, evaluation, reused=False)
