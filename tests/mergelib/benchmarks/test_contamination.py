"""Which benchmarks a search may look at: public test data only where it is allowed."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.api.instance import Instance
from lm_eval.config.task import TaskConfig

from mergelib.benchmarks.contamination import REPORTED, public_test_data
from mergelib.benchmarks.items import Benchmark, Item, open_benchmark
from mergelib.errors import InputError
from mergelib.reservations import reservations
from mergelib.search import parse_search
from mergelib.sections.objectives import Objective
from mergelib.workbench import Workbench

TASK = """\
task: questions
dataset_path: {path}
{splits}
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: exact_match}}]
"""


class _Task:
    def __init__(self, **config: Any) -> None:
        self.config = TaskConfig(task="questions", doc_to_text="", **config)


def _benchmark(split: str, **config: Any) -> Benchmark:
    """A benchmark whose search items come from a split; nothing of it is downloaded."""
    item = Item(f"{split}/0", "search", {}, "", (), "", "")
    return Benchmark("questions", _Task(**config), "exact_match", "none", True, (item,))


def _found(benchmark: Benchmark, asked_for: str) -> str | None:
    return public_test_data(benchmark, asked_for, "objectives.0", allowed=True)


HUB = {"dataset_path": "openai/gsm8k", "test_split": "test"}


@pytest.fixture
def own_file(tmp_path: Path) -> str:
    (tmp_path / "task.yaml").write_text("task: questions\n")
    return str(tmp_path / "task.yaml")


def test_the_test_split_of_a_hub_data_set_is_public_whoever_wrote_the_task(own_file: str) -> None:
    said = "split test of openai/gsm8k"
    assert _found(_benchmark("test", **HUB), "gsm8k") == said
    assert _found(_benchmark("test", **HUB), own_file) == said
    hidden = {"dataset_path": "me/mine", "test_split": "heldout"}
    assert _found(_benchmark("heldout", **hidden), own_file) == "split heldout of me/mine"


def test_one_public_task_of_a_group_is_enough(own_file: str) -> None:
    tasks = {
        "local": _Task(dataset_path="json", test_split="test"),
        "public": _Task(**HUB),
    }
    items = tuple(
        Item(
            f"{name}/test/0",
            "search",
            {},
            "",
            (Instance("generate_until", {}, (), 0, (name, 0, 1)),),
            "",
            "",
        )
        for name in tasks
    )
    group = Benchmark("both", tasks["local"], "exact_match", "none", True, items, tasks)
    assert _found(group, own_file) == "split test of openai/gsm8k"


@pytest.mark.parametrize("split", ["validation", "train", "dev", "train[:500]"])
def test_other_splits_of_a_hub_data_set_may_be_searched(split: str, own_file: str) -> None:
    both = {**HUB, "validation_split": split}
    assert _found(_benchmark(split, **both), "gsm8k") is None
    alone = {"dataset_path": "openai/gsm8k", "test_split": split}
    assert _found(_benchmark(split, **alone), own_file) is None


def test_what_lm_evals_own_task_evaluates_is_public_whatever_it_is_called() -> None:
    config = {"dataset_path": "Idavidrein/gpqa", "validation_split": "train"}
    assert _found(_benchmark("train", **config), "gpqa_main_zeroshot") is not None


@pytest.mark.parametrize("name", sorted(REPORTED))
def test_splits_that_stand_for_test_splits_are_known(name: str, own_file: str) -> None:
    split = REPORTED[name]
    for other in ({}, {"test_split": "test"}):
        config = {"dataset_path": name, "validation_split": split, **other}
        assert _found(_benchmark(split, **config), own_file) == f"split {split} of {name}"


@pytest.mark.parametrize(
    ("files", "public"),
    [
        ({"test": "here.json"}, False),
        ({"test": ["a.json", "https://example.org/b.json"]}, True),
        ("hf://datasets/openai/gsm8k/test.json", True),
    ],
)
def test_files_are_public_where_they_come_from_elsewhere(
    files: Any, public: bool, own_file: str
) -> None:
    config = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
    assert (_found(_benchmark("test", **config), own_file) is not None) == public


def test_the_shipped_benchmarks_are_not_public_test_data(data: Path) -> None:
    for path in sorted((data / "benchmarks").glob("zoo_??.yaml")):
        benchmark = open_benchmark(Objective(benchmark=str(path), fresh_items=2), "tasks", 0)
        assert _found(benchmark, str(path)) is None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of the hub, which cannot be reached from everywhere."""
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(60)]
    whole = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name in ("test",)})
    monkeypatch.setattr(datasets, "load_dataset", lambda **_: whole)


@pytest.mark.usefixtures("hub")
def test_a_search_on_it_must_be_allowed_and_is_told_of(
    search_content: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "gsm8k.yaml"
    file.write_text(TASK.format(path="openai/gsm8k", splits="test_split: test"))
    search_content["objectives"] = [{"benchmark": str(file), "fresh_items": 20}]
    with pytest.raises(InputError) as refused:
        Workbench(parse_search(search_content, "here"))
    (line,) = str(refused.value).splitlines()
    for part in ("objectives.0.benchmark: questions", "openai/gsm8k", "allow_test_sets: true"):
        assert part in line
    search_content["allow_test_sets"] = True
    bench = Workbench(parse_search(search_content, "here"))
    assert bench.test_sets == {"questions": "split test of openai/gsm8k"}
    assert any("questions is searched on public test data" in note for note in bench.notes)
    (sentence,) = reservations(bench)
    assert "split test of openai/gsm8k" in sentence
