"""Runs with finished generations go on without reading them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.resuming import write_generations
from flows.evolve import evaluations_left
from mergelib.judging import judge_of
from mergelib.runs import Run
from mergelib.stopping import progress_of, reason_to_stop


@pytest.fixture
def long(finished: Run, tmp_path: Path) -> Run:
    """The finished search with three generations more that a synthetic judge answered."""
    shutil.copytree(finished.folder, tmp_path / "small")
    run = Run(tmp_path / "small")
    write_generations(run, 6)
    return run


def test_a_finished_generation_costs_a_look_and_no_reading(
    long: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert long.finished_generations() == 6

    def read(*_args: object) -> None:
        raise AssertionError("a finished generation was read")

    for reader in ("generation", "state", "table", "events"):
        monkeypatch.setattr(Run, reader, read)
    search = long.search
    evolution = search.evolution.model_copy(update={"generations": 8})
    long.prepare(search.model_copy(update={"evolution": evolution}), long.fingerprints)
    assert reason_to_stop(long) is None
    assert evaluations_left(long, long.workbench()) > 2 * search.evolution.population


def test_the_best_so_far_reads_each_generation_once(
    long: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, asked = judge_of(long), list[int]()
    told = [long.generation(number)["fitness"].to_numpy() for number in range(6)]
    expected = np.maximum.accumulate([np.nanmax(fitness) for fitness in told])
    whole = Run.generation

    def counted(run: Run, number: int) -> object:
        asked.append(number)
        return whole(run, number)

    monkeypatch.setattr(Run, "generation", counted)
    assert progress_of(long, judge) == pytest.approx(expected)
    assert progress_of(long, judge) == pytest.approx(expected)
    write_generations(long, 7)
    del asked[:]
    assert len(progress_of(long, judge)) == 7
    assert asked == [6]
