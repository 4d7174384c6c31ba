"""Extract and Estimate: items, the endpoints' answers, calibration, anchors, the uniform merges."""

from pathlib import Path

from prefect import flow

from flows.progress import progress
from mergelib.calibration import all_asked, calibration_plan
from mergelib.judging import judge_of
from mergelib.runs import Run
from mergelib.tables import combined
from tasks.calibration import calibrate
from tasks.extraction import extract
from tasks.selection import estimate, record
from tasks.side_by_side import Question, all_answered

PREPARED = ("bank.parquet", "intervals.json", "uniform.parquet")
"""The files that a prepared run has; the last ones to be written."""


@flow(name="prepare", flow_run_name="prepare", persist_result=False, result_serializer="json")
def prepare(run: str) -> None:
    """Bring a run to where its first generation can be asked for.

    Args:
        run: the run folder.
    """
    folder = Run(Path(run))
    bench = folder.workbench()
    extract(run)

    everything = all_asked(bench, "search")
    questions = [
        Question(reference, everything, c.name, "endpoints", f"{c.name} answers the search items")
        for reference, c in bench.checkpoints.items()
    ]
    for number, (recipe, share) in enumerate(calibration_plan(bench)):
        label, what = f"calibration {number}", f"calibration merge {number + 1} answers"
        questions.append(Question(recipe.to_yaml(), share, label, "calibration", what))
    record(run, "prepare", all_answered(folder, questions, progress.at))
    calibrate(run)

    rungs = judge_of(folder, 0).rungs
    sweep = bench.space.uniform_sweep()
    questions = []
    for number, genome in enumerate(sweep):
        recipe = bench.space.decode(genome).to_yaml()
        label, what = f"uniform {number}", f"uniform merge {number + 1} answers"
        # Rung by rung, so that a race finds them answered.
        questions += [Question(recipe, asked, label, "uniform", what) for asked in rungs]
    parts = all_answered(folder, questions, progress.at)
    answers = [combined(parts[n : n + len(rungs)]) for n in range(0, len(parts), len(rungs))]
    estimate(run, None, sweep, answers)
