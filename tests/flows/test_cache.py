from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from mergelib.runs import Run
from tests.conftest import small_search
from tests.flows.conftest import run_search


def cache(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["cache", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result


@pytest.fixture
def two_runs(own_store: Path) -> Path:
    """A finished run, and one that rests on the same evaluations and was stopped on its way."""
    for name in ("small", "twin"):
        run_search({**small_search(), "name": name}, own_store)
    Run(own_store / "twin").path("report.html").unlink()
    return own_store


def test_what_a_store_keeps_is_listed_and_pruned(two_runs: Path) -> None:
    files = list((two_runs / ".mergeflow" / "results").rglob("*"))
    evaluations = sum(file.is_file() for file in files)
    listed = cache("list", "--store", str(two_runs)).stdout
    assert f"{evaluations} evaluations, " in listed.replace("\n", "")
    assert "unfinished" in next(line for line in listed.splitlines() if " twin " in line)

    everything = ["prune", "--store", str(two_runs), "--older-than", "0"]
    assert f"{evaluations} more are kept, which unfinished runs" in cache(*everything).stdout
    assert "deleted 0 evaluations" in cache(*everything, "--delete").stdout
    assert f"would delete {evaluations} evaluations" in cache(*everything, "--force").stdout
    assert all(file.exists() for file in files)
    run_search({**small_search(), "name": "twin"}, two_runs)
    assert f"deleted {evaluations} evaluations" in cache(*everything, "--delete").stdout
    assert not any(file.is_file() for file in files)
