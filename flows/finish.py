"""The end of a search: finalists on further and fresh items, export, report."""

from pathlib import Path

from prefect import flow

from flows.progress import progress
from mergelib import finalists
from mergelib.calibration import all_asked
from mergelib.evaluation import Asked
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
    candidates = choose_finalists(run)
    uniform = finalists.best_of(
        folder.table("uniform.parquet"), judge, UNIFORM_FINALISTS, "uniform", folder.here
    )

    def let_answer(
        contenders: list[finalists.Contender], asked: Asked, stage: str
    ) -> list[Answered]:
        questions = [
            Question(one.reference, asked, one.name, stage, f"{one.name} answers")
            for one in contenders
        ]
        return all_answered(folder, questions, progress.at)

    deciding = judge.unseen(search.deciding_items)
    answers = let_answer([*candidates, *uniform], deciding, "deciding")
    record(run, "deciding", answers)
    winner = None
    if search.front:
        candidates = keep_better_half(run, candidates)
    else:
        responses = responses_table(answers)
        winner = finalists.decide(candidates, responses, judge).model
        uniform = [finalists.decide(uniform, responses, judge)]
    contenders = [*finalists.parents(bench), *uniform, *candidates]
    fresh = let_answer(contenders, all_asked(bench, "fresh"), "fresh")
    record(run, "fresh", fresh)
    score_finalists(run, contenders, winner, fresh)
    progress.at("exporting")
    where_models_are(folder, export)
    publish(run)
