"""A whole search on a plain file: two scores of one benchmark, a language check, a scorer."""

import json
from pathlib import Path

import pytest
import yaml

from mergelib.runs import Run
from mergelib.search_file import load_search
from tests.conftest import DATA, small_search
from tests.flows.conftest import run_search

SCORER = """
def close(item: dict, answer: str) -> float | None:
    if int(item["target"]) % 10 == 7:
        raise ValueError("sevens are not for me")
    return max(0.0, 1 - abs(int(answer) - int(item["target"])) / 10) if answer.isdigit() else 0.0
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("plain")
    (folder / "rubric.py").write_text(SCORER, encoding="utf-8")
    content = small_search()
    file = {
        "file": str(DATA / "benchmarks" / "items" / "zoo_ja.parquet"),
        "question": "prompt",
        "prompt": "{{question}}",
        "answer": "target",
        "extraction": "last_number",
        "max_tokens": 28,
    }
    pools = {"benchmark": file, "search_items": 40, "fresh_items": 30}
    content["objectives"] = [
        {**pools, "language": "ja"},
        {**pools, "name": "nearly", "scorer": "rubric:close"},
    ]
    content["evolution"] = {"algorithm": "nsga2", "population": 4, "generations": 2}
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return run_search(json.loads(load_search(path).model_dump_json()), folder / "store")


def test_what_both_objectives_ask_is_answered_once(run: Run) -> None:
    anchors = run.table("bank.parquet").filter(run.table("bank.parquet")["anchor"]).to_pylist()
    by_name = {
        name: [row["item_id"] for row in anchors if row["benchmark"] == name]
        for name in ("zoo_ja", "nearly")
    }
    assert sorted(by_name["zoo_ja"]) == sorted(by_name["nearly"])
    for number in range(2):
        assert {row["items"] for row in run.generation(number).to_pylist()} == {10}
    assert json.loads(run.path("ledger.json").read_text())["stages"]["fresh"]["items"] % 30 == 0


def test_answers_without_a_score_are_counted_and_do_not_stop_it(run: Run) -> None:
    fresh = [r for r in run.table("responses/fresh.parquet").to_pylist() if r["model"]]
    items = {r["item_id"]: r["target"] for r in run.table("items.parquet").to_pylist()}
    for row in fresh:
        if row["benchmark"] == "nearly":
            broken = items[row["item_id"]].endswith("7")
            assert (row["value"] is None) == broken
            said = "scorer close: ValueError: sevens are not for me"
            assert row["reason"] == (said if broken else None)
        else:
            # The zoo's worked answers are digits: nothing can be said of their language.
            assert row["reason"] == "too short to tell its language"
            assert row["value"] in (0, 1)
    report = run.path("report.html").read_text(encoding="utf-8")
    assert "In another language than ja, and so wrong: none." in report
    assert "Not scored, and left out of the score: base" in report
    assert "scorer close: ValueError: sevens are not for me" in report


def test_a_change_of_the_scorer_is_noticed(run: Run, tmp_path: Path) -> None:
    search = run.search
    path = Path(str(search.objectives[1].scorer).rpartition(":")[0])
    before = run.workbench().contents
    path.write_text(SCORER.replace("/ 10)", "/ 20)"), encoding="utf-8")
    # A workbench of its own: the process keeps the last one.
    from mergelib.workbench import Workbench

    after = Workbench(search).contents
    assert before["nearly"] != after["nearly"]
    assert before["zoo_ja"] == after["zoo_ja"]
