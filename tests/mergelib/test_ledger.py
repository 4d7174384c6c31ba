import pytest

from mergelib.files import write_json
from mergelib.ledger import COSTS, account, finished_as, is_reported, spent, spent_by
from mergelib.runs import Run
from mergelib.search import parse_search


def event(key, model, *, items=10, reused=False, **costs):
    defaults = {"tokens": 100 * items, "flops": 1e6 * items, "seconds": 0.5 * items}
    return {"key": key, "model": model, "items": items, "reused": reused, **defaults, **costs}


def test_each_evaluation_is_counted_once():
    events = [
        event("k1", "m1"),
        event("k2", "m1", items=5),
        event("k3", "m2", items=20, reused=True),
        # Found again after the run was killed.
        event("k1", "m1", reused=True),
    ]
    sums = account(events, items_of_all_benchmarks=350)
    assert sums["spent"] == {"items": 35, "tokens": 3500, "flops": 35e6, "seconds": 17.5}
    assert (sums["models"], sums["evaluations"]) == (2, 3)
    assert (sums["answered"], sums["reused"], sums["answered_twice"]) == (2, 2, 0)
    # Two models on 350 items, at the average cost of an item: 20 times as much.
    assert sums["times_less"] == 20
    assert sums["full_evaluation"] == {
        "items": 700,
        "tokens": 70_000,
        "flops": 700e6,
        "seconds": 350,
    }


def test_work_done_twice_is_shown_and_costs_once():
    events = [event("k", "m"), event("k", "m"), event("k", "m")]
    sums = account(events, 100)
    assert (sums["answered"], sums["answered_twice"]) == (1, 2)
    assert sums["spent"]["items"] == 10


def test_a_model_that_failed_flatters_no_saving():
    nothing = dict.fromkeys(COSTS, 0)
    sums = account([event("k1", "m1"), event("k2", "m2") | nothing], 100)
    assert sums["spent"]["items"] == 10
    assert sums["models"] == 1
    assert sums["times_less"] == 10


def test_carried_on_the_costs_are_what_they_are_in_sum(tmp_path):
    run = Run(tmp_path)
    assert spent_by(run) == dict.fromkeys(COSTS, 0)
    for added in (
        event("k1", "m1", stage="search"),
        event("k2", "m1", items=5, stage="fresh"),
        event("k1", "m1", stage="search", reused=True),
        # Answered by another machine, after its file was lost.
        event("k1", "m1", stage="search", seconds=0.25),
        event("k2", "m1", items=5, stage="search"),
        event("k3", "m2", items=7, stage="rung 1"),
    ):
        run.journal(added)
        assert spent_by(run) == spent(run.events())
    assert spent_by(run)["items"] == 17


@pytest.mark.parametrize("events", [[], [event("k", "m", items=0)]])
def test_nothing_answered_has_no_factor(events):
    sums = account(events, 100)
    assert sums["times_less"] is None
    assert sums["spent"]["items"] == 0
    assert sums["full_evaluation"] == {
        "items": 0,
        "tokens": 0,
        "flops": 0,
        "seconds": 0,
    }


def test_a_run_is_finished_for_the_settings_it_was_finished_with(tmp_path, search_content):
    run = Run(tmp_path / "run")
    search = parse_search(search_content, "here")
    run.prepare(search, {})
    assert not is_reported(run)
    for name in ("report.html", "finalists.parquet"):
        run.path(name).touch()
    assert not is_reported(run)
    write_json(run.path("ledger.json"), {"finished_as": finished_as(run)})
    assert not is_reported(run)
    run.path("winner").mkdir()
    assert is_reported(run)
    for key, value in (("generations", 9), ("finalists", 3), ("deciding_items", 21)):
        changed = {**finished_as(run), key: value}
        assert changed != finished_as(run)
        write_json(run.path("ledger.json"), {"finished_as": changed})
        assert not is_reported(run)
    run.path("report.html").unlink()
    write_json(run.path("ledger.json"), {"finished_as": finished_as(run)})
    assert not is_reported(run)
