"""The command as a user runs it: a process of its own, killed, resumed, and given bad input."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mergelib.runs import Run
from mergelib.search import parse_search
from mergelib.workbench import open_workbench
from tests.conftest import small_search

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]


def environment() -> dict[str, str]:
    """The environment of a user: no test server, nothing of Prefect set."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}


def mergeflow(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def search_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "search.yaml"
    path.write_text(yaml.safe_dump(small_search()), encoding="utf-8")
    return path


def _with(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set one key of a search file, by its dotted path."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        place: Any = content
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_with("merge.metod", "ties"), "merge.metod: 'metod' is not a key here; did you mean"),
        (
            _with("merge.method", "task_arithmatic"),
            "merge.method: 'task_arithmatic' is not a merge method; did you mean 'task_arithmetic'",
        ),
        (_with("endpoints", ["one"]), "endpoints: at least 2 entries needed, 1 given"),
        (
            _with("endpoints", ["no/such/a", "no/such/b"]),
            "endpoints.0: 'no/such/a': no such folder",
        ),
        (_with("evolution.population", 0), "evolution.population: 0: "),
        (_with("objectives", [{"benchmark": "nothing.yaml"}]), "objectives.0.benchmark: "),
        (
            _with("merge", {"method": "slerp", "parameters": {"weight": {"low": -1, "high": 1}}}),
            "'weight' is not a parameter of slerp; Allowed: t",
        ),
        (
            _with("merge", {"method": "slerp", "parameters": {"t": {"low": -0.5, "high": 1}}}),
            "merge.parameters.t: -0.5 is out of range; allowed: 0 to 1",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["evolve"])
def test_a_bad_search_file_gets_one_clear_line_and_writes_nothing(
    change: Callable[[dict[str, Any]], None], said: str, verb: str, tmp_path: Path
) -> None:
    content = small_search()
    change(content)
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    result = mergeflow(verb, str(path), "--store", str(tmp_path / "store"))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    line = result.stderr.strip()
    assert said in line
    assert [p.name for p in tmp_path.iterdir()] == ["search.yaml"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_a_search_says_how_to_go_on(
    number: signal.Signals, search_file: Path, tmp_path: Path
) -> None:
    # What tests run in the background start would not hear SIGINT.
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    # As a thread of Prefect's may print that the interruption catches too.
    late = r"import atexit, sys; atexit.register(sys.stderr.write, 'a late trace\n'); "
    command = [*COMMAND[:2], hears + late + COMMAND[2]]
    process = subprocess.Popen(
        [*command, "evolve", str(search_file), "--store", str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = Run(tmp_path / "small")
    while process.poll() is None and sum(1 for _ in run.events()) < 4:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; the same command goes on where it stopped"


def test_a_finished_search_is_shown_again_at_once(
    finished: Run, search_file: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "small")
    done = mergeflow("evolve", str(search_file), "--store", str(tmp_path))
    assert done.returncode == 0
    assert "report.html" in done.stdout
    # No flow runs, so no server is waited for.
    assert "Prefect" not in done.stdout


def test_a_model_that_has_gone_is_exported_again(
    finished: Run, search_file: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(finished.folder, tmp_path / "small"))
    shutil.rmtree(run.path("winner"))
    done = mergeflow("evolve", str(search_file), "--store", str(tmp_path))
    assert done.returncode == 0, done.stderr
    weights = [one.path("winner/model.safetensors").read_bytes() for one in (run, finished)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("state/0002.json", "is damaged; delete it, and the same command makes it anew"),
        ("bank.parquet", "is damaged; delete it, and the same command makes it anew"),
        ("search.yaml", "is damaged, and the run with it; give the search another name, or delete"),
    ],
)
def test_a_damaged_file_is_named(
    name: str, said: str, finished: Run, search_file: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(finished.folder, tmp_path / "small"))
    damaged = run.path(name)
    damaged.write_bytes(damaged.read_bytes()[:50] + b"\n{")
    raised = ["--set", "evolution.generations=4"]
    done = mergeflow("evolve", str(search_file), "--store", str(tmp_path), *raised)
    assert done.returncode == 2
    assert f"{damaged}: {said}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_store_below_a_file_is_the_users_fault(search_file: Path) -> None:
    done = mergeflow("evolve", str(search_file), "--store", str(search_file / "store"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"{search_file}")
    assert "Traceback" not in done.stderr


def test_a_search_and_its_run_have_one_workbench(finished: Run) -> None:
    search = parse_search(small_search(), "test")
    bench = open_workbench(finished.settled(search), finished.models)
    assert bench is finished.workbench()


@pytest.mark.parametrize(
    "arguments", [["evolve"], ["evolve", "x.yaml", "--bogus"], ["evolv"], ["ui", "--port", "99999"]]
)
def test_wrong_usage_is_the_users_fault(arguments: list[str]) -> None:
    result = mergeflow(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "Usage" in result.stderr


def test_what_cannot_be_done_here_is_told_before_anything_is_written(
    search_file: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    overflow = ["merge.export_dtype=float16", "merge.parameters.weight={low: 1.0e+8, high: 1.0e+9}"]
    for overrides, said in (
        (["compute.device=cuda:77"], "compute.device: cuda:77 cannot do it"),
        (["compute.dtype=float16"], "compute.dtype: float16 would round the exported float32"),
        (overflow, "merge: this search's models cannot be merged: tensor"),
    ):
        settings = [part for override in overrides for part in ("--set", override)]
        result = mergeflow("evolve", str(search_file), "--store", str(store), *settings)
        assert result.returncode == 2, result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert said in result.stderr
    assert not store.exists()


def test_check_says_what_it_found(search_file: Path) -> None:
    result = mergeflow("check", str(search_file))
    assert result.returncode == 0
    assert "6 genes" in result.stdout
    assert "zoo_ja (40 search and 30 fresh items)" in result.stdout


def test_status_of_no_run_is_the_users_fault(tmp_path: Path) -> None:
    result = mergeflow("status", str(tmp_path))
    assert result.returncode == 2
    assert "no run folder" in result.stderr
