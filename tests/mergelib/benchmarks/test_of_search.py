"""Several objectives on one benchmark: their names, and that what they ask is answered once."""

from pathlib import Path
from typing import Any

import pytest

from mergelib.benchmarks.of_search import open_benchmarks
from mergelib.errors import InputError
from mergelib.search import parse_search
from mergelib.workbench import Workbench, total_items


def _no_chat(key: str) -> Any:
    raise AssertionError(key)


@pytest.fixture
def two_metrics(search_content: dict[str, Any], data: Path) -> dict[str, Any]:
    """A search by two metrics of one benchmark: choices of the zoo, from its own Parquet file."""
    file = {
        "file": str(data / "benchmarks" / "items" / "zoo_ja.parquet"),
        "question": "prompt",
        "prompt": "{{question}}",
        "answer": "gold",
        "choices": "choices",
    }
    pools = {"benchmark": file, "name": "ja", "search_items": 30, "fresh_items": 20}
    search_content["objectives"] = [{**pools}, {**pools, "metric": "acc_norm"}]
    search_content["evolution"]["algorithm"] = "nsga2"
    return search_content


def test_two_metrics_of_one_benchmark_are_told_apart(two_metrics: dict[str, Any]) -> None:
    chosen = open_benchmarks(parse_search(two_metrics, "here"), _no_chat)
    assert list(chosen.benchmarks) == ["ja.acc", "ja.acc_norm"]
    one, other = chosen.benchmarks.values()
    assert [i.item_id for i in one.items] == [i.item_id for i in other.items]
    assert [i.asked for i in one.items] == [i.asked for i in other.items]
    assert not {i.digest for i in one.items} & {i.digest for i in other.items}
    assert total_items(chosen.benchmarks.values()) == 50


def test_what_is_asked_alike_is_answered_once(two_metrics: dict[str, Any]) -> None:
    bench = Workbench(parse_search(two_metrics, "here"))
    ids = [item.item_id for item in bench.benchmarks["ja.acc"].pool("search")]
    endpoint = bench.search.endpoints[1]
    both = bench.evaluate(endpoint, {"ja.acc": ids[:20], "ja.acc_norm": ids[10:]})
    assert both["items"] == 30
    alone = {
        name: bench.evaluate(endpoint, {name: asked})
        for name, asked in (("ja.acc", ids[:20]), ("ja.acc_norm", ids[10:]))
    }
    for name, evaluation in alone.items():
        assert both["responses"][name] == evaluation["responses"][name]
    assert {row[0] for row in both["responses"]["ja.acc"]} == {0, 1}


def test_names_grow_only_where_they_must(search_content: dict[str, Any], data: Path) -> None:
    path = str(data / "benchmarks" / "zoo_ja.yaml")
    search_content["objectives"] = [
        {"benchmark": path, "search_items": 20},
        {"benchmark": path, "search_items": 20, "language": "ja"},
        {"benchmark": str(data / "benchmarks" / "zoo_de.yaml"), "search_items": 20},
    ]
    search_content["evolution"]["algorithm"] = "nsga2"
    chosen = open_benchmarks(parse_search(search_content, "here"), _no_chat)
    assert list(chosen.benchmarks) == [
        "zoo_ja.exact_match.answer.any",
        "zoo_ja.exact_match.answer.ja",
        "zoo_de",
    ]
    search_content["objectives"][1]["name"] = "in Japanese"
    chosen = open_benchmarks(parse_search(search_content, "here"), _no_chat)
    assert list(chosen.benchmarks) == ["zoo_ja", "in Japanese", "zoo_de"]
    search_content["objectives"][1] |= {"name": "zoo_de", "language": None, "filter": "answer"}
    search = parse_search(search_content, "here")
    with pytest.raises(InputError, match="objectives.2.benchmark: the task zoo_de is named twice"):
        open_benchmarks(search, _no_chat)


def test_a_constraint_goes_by_its_objective(two_metrics: dict[str, Any]) -> None:
    file = two_metrics["objectives"][0]["benchmark"]
    two_metrics["constraints"] = [{"benchmark": file, "at_least": 0.1}]
    with pytest.raises(InputError, match="constraints.0.benchmark: .*parquet is 2 objectives"):
        open_benchmarks(parse_search(two_metrics, "here"), _no_chat)
    del two_metrics["objectives"][1]
    chosen = open_benchmarks(parse_search(two_metrics, "here"), _no_chat)
    assert list(chosen.benchmarks) == list(chosen.limits) == ["ja"]
    for key, value in {"metric": "acc_norm", "chat_template": True}.items():
        limited = {**two_metrics["constraints"][0], key: value}
        search = parse_search(two_metrics | {"constraints": [limited]}, "here")
        said = f"constraints.0.{key}: .* is an objective, which says so"
        with pytest.raises(InputError, match=said):
            open_benchmarks(search, _no_chat)
