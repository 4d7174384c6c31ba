import errno
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version

import pyarrow as pa
import pytest
import yaml

from mergelib.errors import InputError
from mergelib.files import write_json
from mergelib.runs import Run
from mergelib.search import parse_search

FINGERPRINTS = {"base": "b", "one": "1", "two": "2"}
TABLE = pa.table({"generation": [0]})


@pytest.fixture
def content(search_content):
    return search_content | {"base": "base", "endpoints": ["one", "two"]}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "store" / "small")


@pytest.fixture
def begun(run, content):
    run.prepare(parse_search(content, "here"), FINGERPRINTS)
    return run


def refusal(run, content, fingerprints=FINGERPRINTS) -> str:
    before = run.path("search.yaml").read_bytes()
    with pytest.raises(InputError) as caught:
        run.prepare(parse_search(content, "here"), fingerprints)
    assert run.path("search.yaml").read_bytes() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The search file ----------------------------------------------------------------------------------


def test_a_new_run_holds_the_search_as_resolved(begun, content):
    document = yaml.safe_load(begun.path("search.yaml").read_text())
    assert document["fitness"]["estimator"] == "parent_irt"
    assert document["resolved"]["fingerprints"] == FINGERPRINTS
    assert document["resolved"]["versions"]["mergekit"] == version("mergekit")
    assert begun.search == parse_search(content, "here").settled()
    assert begun.fingerprints == FINGERPRINTS


def test_the_same_search_goes_on(begun, content):
    before = begun.path("search.yaml").stat().st_mtime_ns
    begun.prepare(parse_search(content, "here"), FINGERPRINTS)
    assert begun.path("search.yaml").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "key", "shown"),
    [
        ({"seed": 5}, "seed", "has 0, the search file 5"),
        ({"endpoints": ["two", "one"]}, "endpoints", "['one', 'two'], the search file ['two'"),
        ({"base": "other"}, "base", "has base, the search file other"),
        (
            {"evolution": {"population": 4, "generations": 3, "algorithm": "ga"}},
            *("evolution.algorithm", "has cma_es, the search file ga"),
        ),
        ({"merge.components": ["mlp"]}, "merge.components", "has nothing, the search file ['mlp']"),
        ({"merge.layer_groups": 3}, "merge.layer_groups", "has 2, the search file 3"),
        (
            {"merge.parameters": {"weight": {"low": 0.0, "high": 1.6}}},
            *("merge.parameters.weight.high", "has 1.5, the search file 1.6"),
        ),
        (
            {"merge.parameters": {"weight": {"low": 0.0, "high": 1.5}, "density": 0.5}},
            *("merge.parameters.density", "has nothing, the search file 0.5"),
        ),
        ({"objectives.0.search_items": 39}, "objectives.0.search_items", "40, the search file 39"),
    ],
)
def test_another_search_is_refused_by_the_changed_key(change, key, shown, begun, content):
    for path, value in change.items():
        place = content
        *parents, last = path.split(".")
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place[last] = value
    message = refusal(begun, content)
    assert message.startswith(f"{key}: the run in {begun.folder} has ")
    assert shown in message
    assert message.endswith("give the search another name, or another --store")


def test_a_changed_model_is_refused(begun, content):
    message = refusal(begun, content, {**FINGERPRINTS, "two": "other"})
    assert message.startswith(f"two: has changed since {begun.folder} was begun")


def test_models_and_benchmarks_may_lie_elsewhere(begun, content):
    content["endpoints"] = ["one", "elsewhere/two"]
    content["objectives"][0]["benchmark"] = "elsewhere/zoo_ja.yaml"
    begun.prepare(parse_search(content, "here"), {"base": "b", "one": "1", "elsewhere/two": "2"})
    assert begun.search.endpoints == ("one", "elsewhere/two")
    assert begun.fingerprints == {"base": "b", "one": "1", "elsewhere/two": "2"}
    recipe = "merge_method: linear\nmodels: [{model: two}]\n"
    assert "model: elsewhere/two" in begun.here(recipe)


def test_a_run_of_a_version_without_moves_goes_on(begun, content):
    document = yaml.safe_load(begun.path("search.yaml").read_text())
    del document["resolved"]["moved"]
    begun.path("search.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    assert begun.here("merge_method: linear\n") == "merge_method: linear\n"
    content["finalists"] = 4
    begun.prepare(parse_search(content, "here"), FINGERPRINTS)
    assert begun.search.finalists == 4


def test_generations_may_be_raised_and_not_below_what_is_done(begun, content):
    for generation in range(3):
        begun.write_generation(generation, TABLE)
        begun.write_state(generation, {}, {})
    content["evolution"]["generations"] = 5
    begun.prepare(parse_search(content, "here"), FINGERPRINTS)
    assert begun.search.evolution.generations == 5
    assert begun.fingerprints == FINGERPRINTS
    content["evolution"]["generations"] = 2
    message = refusal(begun, content)
    assert message.startswith(f"evolution.generations: 2, but the run in {begun.folder} has 3")
    assert begun.search.evolution.generations == 5


def test_finalists_may_change(begun, content):
    content |= {"finalists": 4, "deciding_items": 9}
    begun.prepare(parse_search(content, "here"), FINGERPRINTS)
    assert begun.search.finalists == 4


def test_a_search_file_of_the_users_own_is_not_taken_for_a_run(run, content):
    run.folder.mkdir(parents=True)
    run.path("search.yaml").write_text(yaml.safe_dump(content))
    assert "search.yaml: was not written by a run" in refusal(run, content)


# Generations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["table", "state"])
def test_a_generation_is_there_when_both_its_files_are(first, run):
    write = {
        "table": lambda: run.write_generation(0, TABLE),
        "state": lambda: run.write_state(0, {"x": [0.5]}, {}),
    }
    write.pop(first)()
    assert not run.has_generation(0)
    assert run.finished_generations() == 0
    write.popitem()[1]()
    assert run.has_generation(0)
    assert run.finished_generations() == 1
    assert run.generation(0).equals(TABLE)
    assert run.state(0) == {"x": [0.5]}


def test_generations_are_counted_up_to_a_gap(run):
    for generation in (0, 1, 3):
        run.write_generation(generation, TABLE)
        run.write_state(generation, {}, {})
    assert run.finished_generations() == 2


def test_responses_are_gathered_in_the_order_of_their_names(run):
    for name in ("b", "a"):
        run.write_table(f"responses/{name}.parquet", pa.table({"model": [name]}))
    run.gather_responses()
    assert run.table("responses.parquet")["model"].to_pylist() == ["a", "b"]
    assert run.has("responses.parquet", "responses/a.parquet")
    assert not run.has("responses.parquet", "nothing")


def test_results_are_shared_by_the_store(run):
    assert run.results == run.folder.parent / ".mergeflow" / "results"


# The lock -----------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from mergelib.runs import Run
with Run(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_locked_for_one_process_until_it_dies(run):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        for take in (run.check_free, lambda: run.lock().__enter__()):
            with pytest.raises(InputError, match=f"is in use by process {holder.pid} on "):
                take()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    run.check_free()
    # The lock is free, and says of whom it was.
    with run.lock() as left:
        assert left.startswith(f"process {holder.pid} on ")
        assert left.endswith(" was killed; the run goes on where it stopped")
        assert f"process {os.getpid()} on " in run.path(".lock").read_text()
    with run.lock() as left:
        assert left is None


def test_a_lock_is_freed_at_the_end_and_by_an_error(run):
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    with run.lock() as left, pytest.raises(InputError, match="is in use by process"), run.lock():
        pass
    assert left is None


def test_a_lock_that_another_machine_left_may_be_in_use_there(run):
    run.folder.mkdir(parents=True)
    run.path(".lock").write_text("process 7 on elsewhere\n")
    with run.lock() as left:
        assert left.startswith("process 7 on elsewhere did not end; if it still runs there, stop")


def test_a_run_that_was_not_begun_is_free_and_stays_unwritten(run):
    run.check_free()
    assert not run.folder.exists()


def test_a_file_system_without_locks_is_told(run, monkeypatch):
    def flock(*_args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(InputError, match="cannot lock files .No locks available.*--store"):
        run.lock().__enter__()


# The journal --------------------------------------------------------------------------------------


def test_events_come_back_in_order(run):
    assert list(run.events()) == []
    run.folder.mkdir(parents=True)
    for number in range(3):
        run.journal({"number": number, "text": "日本\n語\u2028"})
    assert [event["number"] for event in run.events()] == [0, 1, 2]
    assert all(event["text"] == "日本\n語\u2028" and event["time"] for event in run.events())


@pytest.mark.parametrize(
    "half", [b'{"number": 1, "te', b"\x00\x00\x00\x00", b'{"text": "\xe6', b"\n"]
)
def test_half_a_line_is_skipped_and_the_next_has_its_own(half, run):
    run.folder.mkdir(parents=True)
    run.journal({"number": 0})
    with run.path("journal.jsonl").open("ab") as file:
        file.write(half)
    assert [event["number"] for event in run.events()] == [0]
    run.journal({"number": 2})
    assert [event["number"] for event in run.events()] == [0, 2]
    last = run.path("journal.jsonl").read_bytes().splitlines()[-1]
    assert json.loads(last)["number"] == 2


def test_a_score_that_is_not_a_number_is_not_journalled(run):
    run.folder.mkdir(parents=True)
    with pytest.raises(ValueError, match="JSON compliant"):
        run.journal({"seconds": float("nan")})
    run.journal({"number": 1})
    assert [event["number"] for event in run.events()] == [1]


def test_the_state_is_plain_json(run):
    with pytest.raises(ValueError, match="JSON compliant"):
        run.write_state(0, {"sigma": float("inf")}, {})
    assert not run.has("state/0000.json")
    write_json(run.path("state/0000.json"), {"sigma": 1e-300})
    assert run.state(0) == {"sigma": 1e-300}
