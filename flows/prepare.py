"""Extract and Estimate: items, the endpoints' answers, calibration, anchors, the uniform merges."""

from pathlib import Path

from prefect import flow

from flows.progress import progress
from mergelib.calibration import all_asked, calibration_plan
from mergelib.fitness import judge_of
from mergelib.runs import Run
from mergelib.tables import combined
from tasks.calibration import calibrate
from tasks.candidates import answered
from tasks.extraction import extract
from tasks.selection import estimate, record

PREPARED = ("bank.parquet", "uniform.parquet")
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
    answers = []
    for reference, checkpoint in bench.checkpoints.items():
        progress.at(f"{checkpoint.name} answers the search items")
        answers.append(answered(folder, reference, everything, checkpoint.name, "endpoints"))
    for number, (recipe, share) in enumerate(calibration_plan(bench)):
        progress.at(f"calibration merge {number + 1} answers")
        label = f"calibration {number}"
        answers.append(answered(folder, recipe.to_yaml(), share, label, "calibration"))
    record(run, "prepare", answers)
    calibrate(run)

    rungs = judge_of(folder).rungs
    sweep = bench.space.uniform_sweep()
    answers = []
    for number, genome in enumerate(sweep):
        progress.at(f"uniform merge {number + 1} answers")
        recipe = bench.space.decode(genome).to_yaml()
        # Rung by rung, so that a race finds them answered.
        label = f"uniform {number}"
        parts = [answered(folder, recipe, asked, label, "uniform") for asked in rungs]
        answers.append(combined(parts))
    estimate(run, None, sweep, answers)
