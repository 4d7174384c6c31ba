"""The end of a search: finalists on further and fresh items, export, report."""

from pathlib import Path

from prefect import flow

from flows.progress import progress
from mergelib import finalists
from mergelib.calibration import all_asked
from mergelib.runs import Run
from mergelib.tables import Answered, responses_table
from mergelib.workbench import Asked
from tasks.candidates import answered
from tasks.publishing import export, publish
from tasks.selection import (
    choose_finalists,
    judge_of,
    keep_better_half,
    record,
    score_finalists,
)

UNIFORM_FINALISTS = 2
"""How many of the uniform merges are re-scored, to give the best of them its due."""


@flow(name="finish", flow_run_name="finish", persist_result=False)
def finish(run: str) -> None:
    """Choose, re-score and export the winner or the front, and write the report.

    Args:
        run: the run folder; all its generations are finished.
    """
    folder = Run(Path(run))
    search = folder.search
    bench = folder.workbench()
    names = list(bench.benchmarks)
    candidates = choose_finalists(run)
    uniform = finalists.best_of(
        folder.table("uniform.parquet"), bench, UNIFORM_FINALISTS, "uniform"
    )

    def let_answer(contenders: list[finalists.Contender], asked: Asked) -> list[Answered]:
        answers = []
        for contender in contenders:
            progress.at(f"{contender.name} answers")
            answers.append(answered(folder, contender.reference, asked, contender.name))
        return answers

    deciding = judge_of(folder).unseen(search.deciding_items, search.seed)
    answers = let_answer([*candidates, *uniform], deciding)
    record(run, "deciding", answers)
    winner = None
    if len(names) == 1:
        responses = responses_table(answers)
        winner = finalists.decide(candidates, responses, names[0]).model
        uniform = [finalists.decide(uniform, responses, names[0])]
    else:
        candidates = keep_better_half(run, candidates)
    contenders = [*finalists.parents(bench), *uniform, *candidates]
    fresh = let_answer(contenders, all_asked(bench, "fresh"))
    record(run, "fresh", fresh)
    score_finalists(run, contenders, winner, fresh)
    progress.at("exporting")
    export(run)
    publish(run)
