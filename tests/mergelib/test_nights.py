"""Each night raises a search's limits by a budget, once."""

from pathlib import Path
from typing import Any

import pytest

from mergelib.errors import InputError
from mergelib.files import write_json, write_text
from mergelib.nights import tonight
from mergelib.runs import Run
from mergelib.search import Search, parse_search
from tests.conftest import small_search


def search(**stop: float) -> Search:
    """Three generations, or three a night."""
    content: dict[str, Any] = small_search()
    content["evolution"]["stop"] = stop
    return parse_search(content, "test")


def finish_generations(run: Run, count: int, seconds: float) -> None:
    """Files as of a run with so many generations, which took so long in all."""
    for number in range(count):
        write_text(run.path(f"generations/{number:04d}.parquet"), "")
        write_json(run.path(f"state/{number:04d}.json"), {})
        write_json(run.path(f"state/{number:04d}.spent.json"), {"seconds": seconds})


def limits(run: Run, asked: Search, night: str) -> tuple[int, float | None]:
    evolution = tonight(run, asked, {}, night, hours=2.0).evolution
    return evolution.generations, evolution.stop.hours


def test_the_first_night_has_its_budget(tmp_path: Path) -> None:
    assert limits(Run(tmp_path), search(), "2026-01-01") == (3, 2.0)


def test_another_night_adds_to_what_has_been_spent(tmp_path: Path) -> None:
    run = Run(tmp_path)
    limits(run, search(), "2026-01-01")
    finish_generations(run, 3, seconds=3600)
    assert limits(run, search(), "2026-01-02") == (6, 3.0)


def test_a_night_that_is_begun_again_has_no_new_budget(tmp_path: Path) -> None:
    run = Run(tmp_path)
    before = limits(run, search(), "2026-01-01")
    finish_generations(run, 2, seconds=5400)
    assert limits(run, search(), "2026-01-01") == before


def test_a_limit_of_the_whole_search_holds(tmp_path: Path) -> None:
    run = Run(tmp_path)
    finish_generations(run, 3, seconds=3600)
    night = tonight(run, search(hours=2.5, target=0.9), {}, "2026-01-02", hours=2.0)
    assert night.evolution.stop.hours == 2.5
    assert night.evolution.stop.target == 0.9


def test_a_search_that_the_run_cannot_go_on_with_is_refused_before_its_limits_are_fixed(
    tmp_path: Path,
) -> None:
    run, asked = Run(tmp_path), search()
    run.prepare(tonight(run, asked, {}, "2026-01-01", hours=2.0), {})
    finish_generations(run, 4, seconds=3600)
    other = asked.model_copy(update={"seed": asked.seed + 1})
    with pytest.raises(InputError, match="^seed: the run in "):
        tonight(run, other, {}, "2026-01-02", hours=2.0)
    assert list(run.json("nights.json")) == ["2026-01-01"]
    # More generations than the file names, which are those of one night, are no obstacle.
    assert limits(run, asked, "2026-01-02") == (7, 3.0)
