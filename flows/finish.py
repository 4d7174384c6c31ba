"""The end of a search: finalists on further and fresh items, export, report."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prefect import flow

from flows.progress import progress
from mergelib import finalists
from mergelib.calibration import all_asked
from mergelib.evaluation import Asked
from mergelib.finalists import Contender
from mergelib.fitness import Judge
from mergelib.judging import judge_of
from mergelib.runs import Run
from mergelib.tables import Answered, responses_table
from tasks.publishing import export, publish
from tasks.selection import (
    choose_finalists,
    keep_better_half,
    record,
    score_finalists,
)
from tasks.side_by_side import Question, all_answered, where_models_are

UNIFORM_FINALISTS = 2
"""How many of the uniform merges are re-scored, to give the best of them its due."""


@flow(name="finish", flow_run_name="finish", persist_result=False, result_serializer="json")
def finish(run: str) -> None:
    """Choose, re-score and export the winner or the front, and write the report.

    Args:
        run: the run folder; all its generations are finished.
    """
    folder = Run(Path(run))
    search = folder.search
    bench, judge = folder.workbench(), judge_of(folder)
    uniform = finalists.best_of(
        folder.table("uniform.parquet"), judge, UNIFORM_FINALISTS, "uniform", folder.here
    )

    def let_answer(contenders: Sequence[Contender], asked: Asked, stage: str) -> list[Answered]:
        questions = [
            Question(one.reference, asked, one.name, stage, f"{one.name} answers")
            for one in contenders
        ]
        return all_answered(folder, questions, progress.at)

    deciding = judge.unseen(search.deciding_items)
    if search.front:
        candidates = choose_finalists(run, search.finalists)
        record(run, "deciding", let_answer([*candidates, *uniform], deciding, "deciding"))
        candidates, winner = keep_better_half(run, candidates), None
    else:
        of_uniform = let_answer(uniform, deciding, "deciding")
        uniform = finalists.leaders(uniform, responses_table(of_uniform), judge)[:1]
        candidates, winner, answers = _decided(folder, judge, let_answer)
        record(run, "deciding", [*answers, *of_uniform])
    contenders = [*finalists.parents(bench), *uniform, *candidates]
    fresh = let_answer(contenders, all_asked(bench, "fresh"), "fresh")
    record(run, "fresh", fresh)
    score_finalists(run, contenders, winner, fresh)
    progress.at("exporting")
    where_models_are(folder, export)
    publish(run)


def _decided(
    run: Run,
    judge: Judge,
    let_answer: Callable[[Sequence[Contender], Asked, str], list[Answered]],
) -> tuple[list[Contender], str, list[Answered]]:
    """The finalists, the winner among them, and the answers that decided it."""
    first, *others = finalists.rounds(run.search.finalists, run.search.deciding_items)
    asked = judge.unseen(first.items)
    candidates = choose_finalists(str(run.folder), first.contenders)
    answers = let_answer(candidates, asked, "deciding")
    left = ranked = finalists.leaders(candidates, responses_table(answers), judge)
    for contenders, items in others:
        left = left[:contenders]
        further = {
            name: [item for item in of_benchmark if item not in asked[name]]
            for name, of_benchmark in judge.unseen(items).items()
        }
        asked = judge.unseen(items)
        # A small pool may have no further ones.
        if any(further.values()):
            answers += let_answer(left, further, "deciding")
            left = finalists.leaders(left, responses_table(answers), judge)
    return ranked[: run.search.finalists], left[0].model, answers
