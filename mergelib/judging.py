"""Which judge a generation has, and what the present one says of all merges so far."""

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.benchmarks.of_search import alike
from mergelib.calibration import calibration_plan
from mergelib.errors import InputError
from mergelib.files import FileState, file_state
from mergelib.fitness import Judge
from mergelib.genes import Genome
from mergelib.history import generations_of, responses_of
from mergelib.recalibration import reach, recalibrated, recalibrates
from mergelib.runs import Run

_DECIDING = ("search.yaml", "bank.parquet", "responses/prepare.parquet", "intervals.json")
"""The files that a prepared run's judge is made of."""


def judge_of(run: Run, generations: int | None = None) -> Judge:
    """The judge of a prepared run.

    Args:
        run: the run.
        generations: how many generations' responses it may know, all of which are written; by
            default those of the finished ones. Of a search whose banks are not calibrated again
            all judges are one.

    Raises:
        InputError: the run was prepared by a version whose item banks were laid out otherwise.
    """
    if not recalibrates(run.search):
        generations = 0
    elif generations is None:
        generations = run.finished_generations()
    last = [f"responses/{generations - 1:04d}.parquet"] if generations else []
    states = [file_state(run.path(name)) for name in (*_DECIDING, *last)]
    return _judge(run.folder, generations, *states)


def candidates_of(run: Run) -> pa.Table:
    """All candidates of the finished generations, the oldest first, by the present estimates."""
    tables = generations_of(run)
    if not recalibrates(run.search):
        return pa.concat_tables(tables)
    judge, at_once = judge_of(run, len(tables)), len(reach(run.search, len(tables)))
    parts = [tables[n : n + at_once] for n in range(0, len(tables), at_once)]
    return pa.concat_tables(restated(run, judge, pa.concat_tables(part)) for part in parts)


def restated(run: Run, judge: Judge, table: pa.Table) -> pa.Table:
    """The table of whole generations with the estimates of another judge than at their time."""
    return judge.again(table, responses_of(run, sorted(set(table["generation"].to_pylist()))))


class Merges(NamedTuple):
    """Merges that have answered, as an algorithm is told of them.

    Attributes:
        genomes: n of them.
        fitness: (n, k), maximised; NaN where failed.
        answers: (n, 1), how many items each was asked.
    """

    genomes: list[Genome]
    fitness: NDArray[np.float64]
    answers: NDArray[np.float64]


def merges_before(run: Run, judge: Judge) -> Merges:
    """The calibration's and the uniform merges of a prepared run, by a judge's estimates."""
    bench = run.workbench()
    recipes = [recipe for recipe, _ in calibration_plan(bench)]
    recipes += [bench.space.decode(genome) for genome in bench.space.uniform_sweep()]
    models = [bench.model_digest(recipe.to_yaml()) for recipe in recipes]
    stages = ("prepare", "uniform")
    responses = pa.concat_tables([run.table(f"responses/{stage}.parquet") for stage in stages])
    # Two metrics of one benchmark have the same answers.
    own = pa.array([name for name, first in alike(bench.benchmarks).items() if name == first])
    asked = Counter(
        responses.filter(pa.compute.is_in(responses["benchmark"], own))["model"].to_pylist()
    )
    return Merges(
        [bench.space.encode(recipe) for recipe in recipes],
        judge.fitness(responses, models, beyond_anchors=True),
        np.array([[asked[model]] for model in models], dtype=np.float64),
    )


@lru_cache(maxsize=3)  # a race asks by the first, compares by one, and is told by the next
def _judge(folder: Path, generations: int, *_states: FileState) -> Judge:
    """Set a run's judge up, once for each state of its files: it is asked for at every turn."""
    run = Run(folder)
    banks = run.table("bank.parquet")
    if "rung" not in banks.column_names:
        raise InputError(
            f"{run.path('bank.parquet')}: was written by an earlier version of mergeflow, which "
            "this one cannot go on with; give the search another name, or another --store"
        )
    bench, fits = run.workbench(), run.json("intervals.json")
    prepared = run.table("responses/prepare.parquet")
    if generations == 0:
        return Judge(run.search, bench, banks, prepared, fits)
    answered = responses_of(run, reach(run.search, generations))
    again = recalibrated(bench, banks, fits, prepared, answered)
    return Judge(run.search, bench, again.banks, prepared, again.fits, again.names)
