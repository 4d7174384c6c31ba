"""The end of a search: finalists on further and fresh items, export, report."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prefect import flow

from flows.progress import progress
from mergelib import deciding, finalists
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

    if search.front:
        candidates = choose_finalists(run, search.finalists)
        further = judge.unseen(search.deciding_items)
        record(run, "deciding", let_answer([*candidates, *uniform], further, "deciding"))
        candidates, winner = keep_better_half(run, candidates), None
    else:
        candidates, uniform, winner = decided_in_rounds(folder, judge, uniform, let_answer)
    contenders = [*finalists.parents(bench), *uniform, *candidates]
    fresh = let_answer(contenders, all_asked(bench, "fresh"), "fresh")
    record(run, "fresh", fresh)
    score_finalists(run, contenders, winner, fresh)
    progress.at("exporting")
    where_models_are(folder, export)
    publish(run)


def decided_in_rounds(
    run: Run,
    judge: Judge,
    uniform: list[Contender],
    let_answer: Callable[[Sequence[Contender], Asked, str], list[Answered]],
) -> tuple[list[Contender], list[Contender], str]:
    """The finalists, the best uniform merge, and the winner's digest, decided in rounds."""
    rounds = deciding.rounds(judge, run.search.finalists, run.search.deciding_items)
    of_uniform = [
        one for _, asked in rounds if asked for one in let_answer(uniform, asked, "deciding")
    ]
    left = choose_finalists(str(run.folder), rounds[0].contenders)
    through: list[list[Contender]] = []
    answers: list[Answered] = []
    for contenders, asked in rounds:
        left = left[:contenders]
        through.append(left)
        if not asked or (answers and len(left) == 1):
            continue
        newest = let_answer(left, asked, "deciding")
        answers += newest
        record(str(run.folder), "deciding", [*answers, *of_uniform])
        # Who failed now is not judged by the answers of before.
        failed = {one.model for one in newest if one.evaluation["status"] != "ok"}
        able = [one for one in left if one.model not in failed]
        left = deciding.leaders(able, responses_table(answers), judge)
    best = deciding.leaders(uniform, responses_table(of_uniform), judge)[:1]
    return through[1], best, left[0].model
