"""Scorers of the user's own: imported, checked, and kept from stopping a search."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mergelib.benchmarks.items import Benchmark, open_benchmark
from mergelib.benchmarks.scorers import open_scorer
from mergelib.benchmarks.scoring import score
from mergelib.errors import InputError
from mergelib.search_file import load_search
from mergelib.sections.objectives import Objective
from tests.mergelib.benchmarks.test_plain_files import CHOICES, COLUMNS, rows, write

LENGTH = '''
"""Half a point for the right number, half for brevity."""
from dataclasses import dataclass

@dataclass
class Weights:
    right: float = 0.5

def brief(item: dict, answer: str) -> float | None:
    if not answer:
        return None
    if answer == "stop":
        raise RuntimeError("no\\nway")
    if answer == "much":
        return 2
    if answer == "text":
        return "good"
    item["doc"].clear()
    return Weights().right * (item["target"] in answer) + 0.5 * (len(answer) < 4)
'''


def scored_by(folder: Path, source: str, function: str = "brief") -> Benchmark:
    (folder / "rubric.py").write_text(source, encoding="utf-8")
    objective = Objective.model_validate(
        {
            "benchmark": {
                "file": str(write(folder / "sums.csv", rows())),
                "question": "question",
                "answer": "answer",
            },
            "scorer": f"{folder}/rubric.py:{function}",
        }
    )
    return open_benchmark(objective, "objectives.0", 0)


def test_a_scorer_takes_the_metrics_place(tmp_path: Path) -> None:
    benchmark = scored_by(tmp_path, LENGTH)
    assert (benchmark.metric, benchmark.graded, benchmark.higher_is_better) == ("brief", True, True)
    item = benchmark.items[0]
    answers = [item.target, f"it is {item.target}", "", "stop", "much", "text", "abcdefg"]
    responses = score(benchmark, [item] * 7, [[[answer]] for answer in answers])
    assert [r.value for r in responses] == [1, 0.5, None, None, None, None, 0]
    assert [r.response for r in responses] == [1, None, None, None, None, None, 0]
    assert [r.reason for r in responses[2:6]] == [
        "scorer brief gave None",
        "scorer brief: RuntimeError: no way",
        "scorer brief: returned 2; allowed: a number from 0 to 1, or None",
        "scorer brief: returned 'good'; allowed: a number from 0 to 1, or None",
    ]
    # The function had a copy: what it cleared is still there.
    assert item.doc["question"]


def test_a_scorer_is_shown_the_chosen_text(tmp_path: Path) -> None:
    (tmp_path / "rubric.py").write_text(
        "def f(item, answer):\n    return float(answer == item['target'])\n", encoding="utf-8"
    )
    objective = Objective.model_validate(
        {
            "benchmark": {"file": str(write(tmp_path / "mc.csv", CHOICES)), **COLUMNS},
            "scorer": f"{tmp_path}/rubric.py:f",
        }
    )
    benchmark = open_benchmark(objective, "objectives.0", 0)
    item = next(i for i in benchmark.items if i.target.startswith("two"))
    raw = [[[(-3.0, False)], [(-1.0, False)], [(-2.0, False)]]]
    assert [r.value for r in score(benchmark, [item], raw)] == [1.0]


def test_the_source_decides_the_digests(tmp_path: Path) -> None:
    first = [item.digest for item in scored_by(tmp_path, LENGTH).items]
    assert [item.digest for item in scored_by(tmp_path, LENGTH).items] == first
    other = scored_by(tmp_path, LENGTH.replace("< 4", "< 5")).items
    assert not {item.digest for item in other} & set(first)
    assert [item.asked for item in other] == [i.asked for i in scored_by(tmp_path, LENGTH).items]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def other(item, answer): ...", "'brief' is not a function of it; Allowed: other"),
        ("def brief(item): ...", "must take an item and an answer: too many positional"),
        ("def brief(item, answer, more): ...", "must take an item and an answer: missing"),
        ("async def brief(item, answer): ...", "brief: is no plain function"),
        ("brief = 3", "brief: is no plain function"),
        ("def brief(item, answer) -> str: ...", "says that it returns <class 'str'>; allowed: a"),
        ("def brief(item, answer) -> 'nothing': ...", "its annotations cannot be read"),
        ("def brief(item, answer", "cannot be imported: SyntaxError"),
        ("import not_installed", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemError('a\\nb')", "cannot be imported: SystemError: a b"),
    ],
)
def test_a_scorer_that_cannot_be_one_is_named(tmp_path: Path, source: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        scored_by(tmp_path, source)
    assert str(caught.value).startswith("objectives.0.scorer: rubric.py: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("annotation", ["float", "int", "bool", "float | None", "'float'"])
def test_annotations_that_say_a_number(tmp_path: Path, annotation: str) -> None:
    path = tmp_path / "s.py"
    path.write_text(f"def f(item, answer, *, extra=1) -> {annotation}:\n    return 1\n")
    assert open_scorer(f"{path}:f", "k")({}, "") == 1.0


def test_only_a_file_beside_the_search_file_is_imported(
    tmp_path: Path, search_content: dict[str, Any]
) -> None:
    def load(scorer: str) -> str | None:
        search_content["objectives"][0]["scorer"] = scorer
        path = tmp_path / "search.yaml"
        path.write_text(yaml.safe_dump(search_content), encoding="utf-8")
        return load_search(path).objectives[0].scorer

    assert load("rubric:brief") == f"{tmp_path}/rubric.py:brief"
    for elsewhere in ("../rubric:brief", "/tmp/rubric.py:brief", "os.path:join", "rubric"):
        with pytest.raises(InputError, match="objectives.0.scorer: .* beside the search file"):
            load(elsewhere)
    with pytest.raises(InputError, match="no such Python file"):
        open_scorer(f"{tmp_path}/rubric.py:brief", "objectives.0.scorer")
