"""A whole search on a plain file: two scores of one benchmark, a language check, a scorer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mergelib.errors import InputError
from mergelib.runs import Run
from mergelib.search import parse_search
from mergelib.search_file import load_search
from mergelib.workbench import Workbench
from tests.conftest import DATA, small_search
from tests.flows.conftest import run_search

SCORER = """
def close(item: dict, answer: str) -> float | None:
    if int(item["target"]) % 10 == 7:
        raise ValueError("sevens are not for me")
    return max(0.0, 1 - abs(int(answer) - int(item["target"])) / 10) if answer.isdigit() else 0.0
"""


def _search(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where a search file may be written, beside its scorer, and its content."""
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
    return folder / "search.yaml", content


def _run(path: Path, content: dict[str, Any]) -> Run:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return run_search(json.loads(load_search(path).model_dump_json()), path.parent / "store")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path, content = _search(tmp_path_factory.mktemp("plain"))
    content["evolution"] = {"algorithm": "nsga2", "population": 4, "generations": 2}
    return _run(path, content)


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


def test_a_race_ranks_those_who_got_to_its_end(tmp_path: Path) -> None:
    """What both objectives ask counts once there as well."""
    path, content = _search(tmp_path)
    content["objectives"] = [{**one, "weight": 1} for one in content["objectives"]]
    content["fitness"]["racing"] = True
    content["evolution"] = {"algorithm": "cma_es", "population": 4, "generations": 2}
    run = _run(path, content)
    generations = [run.generation(number).to_pylist() for number in range(2)]
    assert sum(row["incumbent"] for row in generations[0]) == 1
    for rows in generations:
        dropped = [row["fitness"] for row in rows if row["items"] < 10]
        others = [row["fitness"] for row in rows if row["items"] >= 10]
        assert len(dropped) == 3
        assert max(dropped) <= min(others)


def test_its_files_may_lie_elsewhere(run: Run, tmp_path: Path) -> None:
    search = run.search.model_dump(mode="json")
    for objective in search["objectives"]:
        objective["benchmark"]["file"] = shutil.copy(objective["benchmark"]["file"], tmp_path)
    scorer, _, function = search["objectives"][1]["scorer"].rpartition(":")
    search["objectives"][1]["scorer"] = f"{shutil.copy(scorer, tmp_path)}:{function}"
    moved = parse_search(search, "moved")
    run.check_same(moved, Workbench(moved).contents)
    (tmp_path / "rubric.py").write_text(SCORER.replace("/ 10)", "/ 20)"), encoding="utf-8")
    with pytest.raises(InputError, match="nearly: has changed since"):
        run.check_same(moved, Workbench(moved).contents)


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
    after = Workbench(search).contents
    assert before["nearly"] != after["nearly"]
    assert before["zoo_ja"] == after["zoo_ja"]
