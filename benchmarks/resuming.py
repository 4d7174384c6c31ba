"""How long a run with many finished generations takes to go on.

    python -m benchmarks.resuming [--generations 1 10 100 1000] [--population 50] [--store DIR]
        [--json FILE]

Prepares a small search of the shipped models, lets a synthetic judge answer for the candidates of
its first generations (they are written by what writes real ones), and then runs `mergeflow evolve`
for one generation more. `seconds_made` is what it took to write the generations without answers;
`cpu_milliseconds_each` what asking, estimating, telling and knowing what is next cost for the last
of them, the median of five; `seconds_to_go_on` from the command's start to its first new answer,
and `cpu_to_go_on` what its process and Prefect's server had computed until then: how these grow
with `generations` is what finished ones cost. `seconds_to_end` is how long the command took in all,
with the new generation, the finalists and the report. `megabytes` is the size of the run folder. A
store that is given is gone on with; generations that it has already are not measured again.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import yaml
from prefect.logging import disable_run_logger

from benchmarks.record import report
from mergelib.evaluation import Evaluation, nothing_done
from mergelib.judging import judge_of
from mergelib.runs import Run
from mergelib.shipped import shipped
from mergelib.stopping import reason_to_stop
from mergelib.tables import Answered
from tasks.selection import estimate
from tasks.variation import ask, tell

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]


def search_of(population: int, generations: int) -> dict[str, Any]:
    """A small search's content."""
    models, benchmarks = shipped("zoo"), shipped("benchmarks")
    return {
        "name": "long",
        "base": str(models / "base"),
        "endpoints": [str(models / "math"), str(models / "ja")],
        "merge": {
            "method": "task_arithmetic",
            "layer_groups": 4,
            "parameters": {"weight": {"low": 0.0, "high": 1.5}},
        },
        "objectives": [
            {
                "benchmark": str(benchmarks / "zoo_ja.yaml"),
                "search_items": 100,
                "fresh_items": 30,
            }
        ],
        "fitness": {"items": 30, "calibration": {"models": 4}},
        "evolution": {
            "algorithm": "cma_es",
            "population": population,
            "generations": generations,
        },
        "finalists": 2,
        "deciding_items": 30,
    }


class Timed(NamedTuple):
    """How long a command took, in seconds: to its first new answer (wall and CPU), and in all."""

    to_go_on: float
    cpu_to_go_on: float
    to_end: float


def command(store: Path, population: int, generations: int) -> Timed:
    """Run `mergeflow evolve`."""
    file = store / "search.yaml"
    file.write_text(yaml.safe_dump(search_of(population, generations)), encoding="utf-8")
    journal = store / "long" / "journal.jsonl"
    before = journal.stat().st_size if journal.exists() else 0
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    start = time.perf_counter()
    arguments = [*COMMAND, "evolve", str(file), "--store", str(store)]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL) as process:
        went_on = cpu = None
        while process.poll() is None:
            if went_on is None and journal.exists() and journal.stat().st_size > before:
                went_on = time.perf_counter() - start
                cpu = _cpu(psutil.Process(process.pid))
            time.sleep(0.02)
    if process.returncode or went_on is None or cpu is None:
        raise SystemExit("the search did not go on")
    return Timed(went_on, cpu, time.perf_counter() - start)


def _cpu(process: psutil.Process) -> float:
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def write_generations(run: Run, generations: int) -> float:
    """Ask, estimate and tell as a search does, with answers that were drawn and not given.

    Returns:
        The processor's seconds for a generation without its answers, of the last five the median.
    """
    bench, judge = run.workbench(), judge_of(run)
    (anchors,) = judge.rungs
    random = np.random.default_rng(0)
    folder = str(run.folder)
    seconds: list[float] = []
    with disable_run_logger():
        for generation in range(run.finished_generations(), generations):
            start = time.process_time()
            genomes = ask.fn(folder, generation)
            asked = time.process_time() - start
            answers = []
            for genome in genomes:
                recipe = bench.space.decode(genome).to_yaml()
                right = 1.0 - float(np.mean(np.abs(np.array(genome) - 0.7)))
                evaluation = _drawn(anchors, right, random)
                digest = bench.model_digest(recipe)
                answers.append(Answered(digest, anchors, evaluation, reused=False))
                run.journal(
                    {
                        "key": bench.evaluation_digest(recipe, anchors),
                        "model": digest,
                        "label": f"{generation}",
                        "stage": "search",
                        "reused": False,
                        **{cost: evaluation[cost] for cost in ("items", "tokens", "flops")},
                        "seconds": 0.5,
                    }
                )
            start = time.process_time()
            estimate.fn(folder, generation, genomes, answers)
            tell.fn(folder, generation)
            reason_to_stop(run)
            seconds.append(asked + time.process_time() - start)
    return statistics.median(seconds[-5:])


def _drawn(asked: Any, right: float, random: np.random.Generator) -> Evaluation:
    evaluation = nothing_done("ok", None)
    for name, ids in asked.items():
        scores = (random.random(len(ids)) < right).astype(int).tolist()
        evaluation["responses"][name] = [[s, float(s), "12", None] for s in scores]
        evaluation["items"] += len(ids)
    return {**evaluation, "tokens": 100 * evaluation["items"], "flops": 1e9}


def measure(generations: list[int], population: int, store: Path) -> list[dict[str, Any]]:
    """Measure each number of generations, rising, in one run."""
    run, rows = Run(store / "long"), []
    if not run.finished_generations():
        command(store, population, 1)
    for count in sorted(generations):
        if count < run.finished_generations():
            continue
        start = time.perf_counter()
        each = write_generations(run, count)
        made = time.perf_counter() - start
        timed = command(store, population, count + 1)
        size = sum(file.stat().st_size for file in run.folder.rglob("*") if file.is_file())
        rows.append(
            {
                "generations": count,
                "population": population,
                "megabytes": size / 1e6,
                "seconds_made": made,
                "cpu_milliseconds_each": 1e3 * each,
                "seconds_to_go_on": timed.to_go_on,
                "cpu_to_go_on": timed.cpu_to_go_on,
                "seconds_to_end": timed.to_end,
            }
        )
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--generations", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or Path(folder)
        store.mkdir(parents=True, exist_ok=True)
        rows = measure(arguments.generations, arguments.population, store)
    report("resuming", rows, arguments.json)


if __name__ == "__main__":
    main()
