"""What goes wrong during a search: damaged results, failing and slow candidates, full disks."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mergelib.errors import InputError, SearchError
from mergelib.evaluation import Asked, Evaluation
from mergelib.runs import Run
from mergelib.workbench import Workbench
from tasks.candidates import answer
from tests.conftest import small_search
from tests.flows.conftest import run_search
from tests.flows.test_evolve import decided

Evaluate = Callable[[Workbench, str, Asked], Evaluation]


def tiny(name: str, **settings: Any) -> dict[str, Any]:
    """One generation of the small search, in which some candidates are new to the store."""
    content = small_search()
    content["name"] = name
    content["evolution"] = {"algorithm": "random", "population": 8, "generations": 1}
    content["evolution"] |= settings
    return content


def merges_raise(monkeypatch: pytest.MonkeyPatch, error: Callable[[int], Exception | None]) -> None:
    """Have the evaluation of the nth candidate of a search raise."""
    whole: Evaluate = Workbench.evaluate
    count = 0

    def evaluate(bench: Workbench, model: str, asked: Asked) -> Evaluation:
        nonlocal count
        if model not in bench.checkpoints:
            count += 1
            if (raised := error(count)) is not None:
                raise raised
        return whole(bench, model, asked)

    monkeypatch.setattr(Workbench, "evaluate", evaluate)


def test_damaged_results_are_worked_out_again(
    finished: Run, own_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [event["key"] for event in finished.events() if event["stage"] == "search"][:4]
    results = own_store / ".mergeflow" / "results"
    truncated, emptied, flipped, altered = (next(results.rglob(key)) for key in keys)
    whole = {file: file.read_bytes() for file in (truncated, emptied, flipped, altered)}
    truncated.write_bytes(whole[truncated][:-100])
    emptied.write_bytes(b"")
    middle = len(whole[flipped]) // 2
    flip = bytes([whole[flipped][middle] ^ 1])
    flipped.write_bytes(whole[flipped][:middle] + flip + whole[flipped][middle + 1 :])
    # Still JSON, and one answer is another.
    altered.write_bytes(whole[altered].replace(b"[1, 1.0", b"[0, 0.0", 1))
    assert altered.read_bytes() != whole[altered]
    with caplog.at_level(logging.WARNING):
        run = run_search(small_search(), own_store)
    assert decided(run) == decided(finished)
    ledger = json.loads(run.path("ledger.json").read_text())
    assert ledger["answered"] == 4
    told = [r.getMessage() for r in caplog.records if r.name == "tasks.results"]
    assert sorted(told) == sorted(
        [
            f"{emptied}: is empty; it is worked out again",
            *(
                f"{file}: is truncated or was altered; it is worked out again"
                for file in (truncated, flipped, altered)
            ),
        ]
    )
    # What replaced them is whole.
    caplog.clear()
    twin = {**small_search(), "name": "twin"}
    assert json.loads(run_search(twin, own_store).path("ledger.json").read_text())["answered"] == 0
    assert not [record for record in caplog.records if record.name == "tasks.results"]


def test_a_candidate_that_raises_leaves_its_traceback_and_the_search_goes_on(
    own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merges_raise(monkeypatch, lambda n: ValueError("the first is odd") if n == 1 else None)
    run = run_search(tiny("odd"), own_store)
    rows = run.generation(0).to_pylist()
    (failed,) = [row for row in rows if row["status"] == "failed"]
    file = f"failures/{failed['individual'][:16]}.txt"
    assert failed["reason"] == f"ValueError: the first is odd; see {file}"
    text = run.path(file).read_text()
    assert "Traceback" in text
    assert "in evaluate" in text
    assert run.has("report.html")


def test_memory_that_is_taken_for_a_moment_is_asked_for_again(
    own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "retry_delay_seconds", [0.0])
    merges_raise(monkeypatch, lambda n: torch.OutOfMemoryError("taken") if n < 3 else None)
    run = run_search(tiny("crowded"), own_store)
    assert set(run.generation(0)["status"].to_pylist()) == {"ok"}
    assert not run.has("failures")


def test_failures_in_a_row_stop_a_search_that_then_goes_on(
    own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny("broken", stop={"failures": 2})
    merges_raise(monkeypatch, lambda n: ValueError("no device") if n > 1 else None)
    said = r"2 merges in a row failed \(evolution\.stop\.failures\), .* ValueError: no device"
    with pytest.raises(SearchError, match=said):
        run_search(content, own_store)
    monkeypatch.undo()
    run = run_search(content, own_store)
    assert set(run.generation(0)["status"].to_pylist()) == {"ok"}
    assert json.loads(run.path("ledger.json").read_text())["answered_twice"] == 0


def test_an_endpoint_that_fails_stops_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(bench: Workbench, model: str, asked: Asked) -> Evaluation:
        raise ValueError("no device")

    monkeypatch.setattr(Workbench, "evaluate", evaluate)
    with pytest.raises(SearchError, match="base could not answer: ValueError: no device; see "):
        run_search(tiny("hopeless"), tmp_path)


def test_a_slow_candidate_has_failed(own_store: Path) -> None:
    content = tiny("slow")
    content["objectives"][0]["fresh_items"] = 29  # not those that the store has answers to
    content["compute"] = {"seconds_per_candidate": 1e-6}
    with pytest.raises(SearchError, match="has no scored answer to zoo_ja's fresh items"):
        run_search(content, own_store)
    run = Run(own_store / "slow")
    reasons = {row["reason"] for row in run.generation(0).to_pylist() if row["status"] == "failed"}
    said = "TooSlow: 10 items took longer than 1e-06 s (compute.seconds_per_candidate); see "
    assert reasons
    assert all(reason.startswith(said) for reason in reasons)
    # What limits seconds may change; with enough of them the run ends.
    content["compute"] = {"seconds_per_candidate": 60}
    assert run_search(content, own_store).has("report.html")


def test_a_result_that_prefect_cannot_keep_is_kept_or_told(
    finished: Run, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import results

    def full(path: Path, write: object) -> None:
        raise InputError(f"{path}: No space left on device")

    monkeypatch.setattr("prefect.filesystems.LocalFileSystem.write_path", _writes_nothing)
    run = run_search(tiny("kept"), own_store)
    assert json.loads(run.path("ledger.json").read_text())["answered"] > 0
    monkeypatch.setattr(results, "write_atomically", full)
    with pytest.raises(InputError, match="answer-.*: No space left on device"):
        run_search({**tiny("lost"), "seed": 1}, own_store)


def _writes_nothing(_storage: object, path: str, content: bytes) -> None:
    """As on a full disk: an empty file, and an error that Prefect logs and forgets."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(b"")
    raise OSError(28, "No space left on device")
