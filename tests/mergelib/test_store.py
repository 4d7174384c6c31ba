import os
import time

import pytest

from mergelib.errors import InputError
from mergelib.files import write_json, write_text
from mergelib.ledger import finished_as
from mergelib.runs import Run
from mergelib.search import parse_search
from mergelib.store import Store, size_of

NOW = time.time()
FINGERPRINTS = {"base": "b", "one": "1", "two": "2"}


@pytest.fixture
def store(tmp_path, search_content):
    """A finished run, an unfinished one, and evaluations of two code versions.

    Keys: f of the finished run, u of the unfinished one, s of both, n of neither; o is old.
    """
    content = search_content | {"base": "base", "endpoints": ["one", "two"]}
    for name, keys in (("done", "fs"), ("going", "us")):
        run = Run(tmp_path / name)
        run.prepare(parse_search({**content, "name": name}, "here"), FINGERPRINTS)
        write_text(run.path("items.parquet"), "")
        for key in keys:
            run.journal({"key": key})
    done = Run(tmp_path / "done")
    for number in range(content["evolution"]["generations"]):
        write_text(done.path(f"generations/{number:04d}.parquet"), "")
        done.write_state(number, {}, {"seconds": 0, "items": 0})
    for name in ("report.html", "finalists.parquet"):
        write_text(done.path(name), "")
    done.path("winner").mkdir()
    write_json(done.path("ledger.json"), {"finished_as": finished_as(done)})
    began = NOW - 3600
    os.utime(tmp_path / "going" / "items.parquet", (began, began))
    for version, key, days in (
        *(("v2", "f", 3), ("v2", "u", 3), ("v2", "s", 3)),
        *(("v2", "n", 0), ("v2", "o", 9), ("v1", "u", 9)),
    ):
        file = tmp_path / ".mergeflow" / "results" / version / key
        write_text(file, "x" * 10)
        os.utime(file, (NOW - days * 86400,) * 2)
    return Store(tmp_path, "v2")


def names(chosen):
    return [f"{kept.version}/{kept.key}" for kept in chosen]


def test_what_is_there(store):
    assert names(store.kept) == ["v1/u", "v2/f", "v2/n", "v2/o", "v2/s", "v2/u"]
    assert size_of(store.kept) == 60
    assert store.used == {"f": {"done"}, "s": {"done", "going"}, "u": {"going"}}
    assert store.unfinished == {"going"}


@pytest.mark.parametrize(
    ("criteria", "chosen"),
    [
        ({"before": NOW - 5 * 86400}, ["v1/u", "v2/o"]),
        ({"run": "done"}, ["v2/f"]),
        ({"run": "going"}, ["v1/u", "v2/u"]),
        ({"unreachable": True}, ["v1/u"]),
        ({"unused": True}, ["v2/n", "v2/o"]),
        ({"unused": True, "before": NOW - 86400}, ["v2/o"]),
        ({"run": "going", "unreachable": True}, ["v1/u"]),
    ],
)
def test_all_that_is_given_must_hold(criteria, chosen, store):
    assert names(store.select(**criteria)) == chosen


def test_what_an_unfinished_run_looks_for_is_needed(store):
    """Also what nobody has noted and was written since it began: its last evaluations."""
    assert names(filter(store.needed, store.kept)) == ["v2/n", "v2/s", "v2/u"]


def set_again(run, key, value):
    """Start a run again with another value in its search file."""
    content = run.search.model_dump(mode="json")
    section, name = key.split(".")
    content[section][name] = value
    run.prepare(parse_search(content, "here"), FINGERPRINTS)


def test_a_run_that_was_extended_is_unfinished(store):
    run = Run(store.folder / "done")
    set_again(run, "evolution.generations", run.search.evolution.generations + 1)
    assert store.unfinished == {"done", "going"}


def test_a_finished_run_stays_finished_whatever_else_changes(store):
    """Its search.yaml is written anew then, and is newer than the ledger."""
    run = Run(store.folder / "done")
    later = run.path("ledger.json").stat().st_mtime + 10
    set_again(run, "compute.cache_gib", 1.0)
    os.utime(run.path("search.yaml"), (later, later))
    assert store.unfinished == {"going"}


def test_only_what_was_chosen_is_deleted(store):
    store.delete(store.select(unreachable=True))
    left = Store(store.folder, "v2")
    assert names(left.kept) == ["v2/f", "v2/n", "v2/o", "v2/s", "v2/u"]


def test_what_is_no_run_is_passed_over(store):
    write_text(store.folder / "mine" / "search.yaml", "name: mine\n")
    assert list(store.runs) == ["done", "going"]


def test_wrong_questions_are_told(store, tmp_path):
    with pytest.raises(InputError, match="say what may go"):
        store.select()
    with pytest.raises(InputError, match="'goin' is not a run of this store; did you mean 'going'"):
        store.select(run="goin")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        Store(tmp_path / "nowhere", "v2")
