"""A search that is killed ends as one that was not; `python -m benchmarks.kills` kills it more."""

import json
import os
from pathlib import Path

import pytest
import yaml

from benchmarks.kills import decided, disturbed, moments
from mergelib.runs import Run
from tests.conftest import small_search
from tests.flows.test_cli import mergeflow

KILLS = int(os.environ.get("MERGEFLOW_KILLS", "3"))


def test_moments_are_drawn_from_the_whole_search() -> None:
    drawn = moments(2000, 40, 0)
    assert drawn == sorted(drawn) == moments(2000, 40, 0)
    assert drawn != moments(2000, 40, 1)
    places = [place for place, _ in drawn]
    assert places.count(0) == pytest.approx(2000 / 12, rel=0.2)
    assert places.count(40) == pytest.approx(2000 / 12, rel=0.2)
    assert sum(place < 20 for place in places) == pytest.approx(1000, rel=0.1)
    assert all(0 <= later < 8 for _, later in drawn)


def test_a_search_killed_at_random_moments_ends_as_one_that_was_not(
    finished: Run, tmp_path: Path
) -> None:
    """Also when Prefect's database is thrown away each time."""
    search = tmp_path / "search.yaml"
    search.write_text(yaml.safe_dump(small_search()), encoding="utf-8")
    run = Run(tmp_path / "store" / "small")
    evaluations = len({event["key"] for event in finished.events()})
    result = disturbed(search, run, moments(KILLS, evaluations, seed=1), "fresh")
    assert result.landed > 0
    assert result.answered_again == 0
    assert decided(run) == decided(finished)
    ledger = json.loads(run.path("ledger.json").read_text())
    reference = json.loads(finished.path("ledger.json").read_text())
    assert ledger["answered_twice"] == 0
    for cost in ("items", "tokens", "flops"):
        assert ledger["spent"][cost] == reference["spent"][cost]
    status = mergeflow("status", str(run.folder))
    assert status.returncode == 0
    assert "The winner answers" in status.stdout
    # The servers of the killed processes have been ended.
    assert not list((run.folder.parent / ".mergeflow" / "servers").glob("*.json"))[1:]
