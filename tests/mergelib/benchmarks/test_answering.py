"""Answers and scores are lm-eval's own: held to `simple_evaluate` item by item."""

from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.items import open_benchmark
from mergelib.benchmarks.scoring import score
from mergelib.checkpoints import Checkpoint
from mergelib.errors import InputError
from mergelib.merging.resident import ResidentModel
from mergelib.search import Objective

FEWSHOT = """\
include: {folder}/zoo_ja{kind}.yaml
task: zoo_ja_fewshot{kind}
num_fewshot: 2
fewshot_split: search
fewshot_delimiter: "\\n\\n"
"""


@pytest.fixture(scope="module")
def resident(data: Path) -> ResidentModel:
    return ResidentModel(Checkpoint("math", data / "zoo" / "math"), "cpu", "float32")


def _truth(resident: ResidentModel, path: Path, ids: list[int], metric: str) -> list[float]:
    model = HFLM(pretrained=resident.model, tokenizer=resident.tokenizer, batch_size=16)
    manager = TaskManager(include_defaults=False)
    (name,) = manager.load([str(path)])["tasks"]
    samples = simple_evaluate(
        model=model,
        tasks=[str(path)],
        task_manager=manager,
        samples={name: ids},
        bootstrap_iters=0,
    )["samples"][name]
    return [sample[metric] for sample in samples]


@pytest.mark.parametrize(
    ("task", "metric"), [("zoo_ja", "exact_match"), ("zoo_de_choice", "acc"), ("zoo_en", None)]
)
def test_item_scores_are_those_of_lm_eval(
    resident: ResidentModel, data: Path, task: str, metric: str | None
) -> None:
    path = data / "benchmarks" / f"{task}.yaml"
    objective = Objective(benchmark=str(path), metric=metric, fresh_items=40, search_items=2)
    benchmark = open_benchmark(objective, "objectives.0", seed=3)
    items = benchmark.pool("fresh")
    raw, spent = Answerer(resident, 16).answer(items)
    values = [response.value for response in score(benchmark, items, raw)]
    ids = [int(item.item_id.split("/")[1]) for item in items]
    assert values == _truth(resident, path, ids, benchmark.metric)
    assert 0 < sum(v for v in values if v is not None) < len(values)
    assert spent.tokens > 0


@pytest.mark.parametrize("kind", ["", "_choice"])
def test_few_shot_prompts_are_those_of_a_whole_lm_eval_run(
    resident: ResidentModel, data: Path, tmp_path: Path, kind: str
) -> None:
    """Few-shot examples are drawn document after document: prompts depend on those passed over."""
    path = tmp_path / "fewshot.yaml"
    path.write_text(FEWSHOT.format(folder=data / "benchmarks", kind=kind), encoding="utf-8")
    objective = Objective(benchmark=str(path), fresh_items=25, search_items=2)
    benchmark = open_benchmark(objective, "objectives.0", seed=0)
    task: Any = TaskManager(include_defaults=False).load([str(path)])["tasks"][benchmark.name]
    task.set_fewshot_seed(1234)
    task.build_all_requests(rank=0, world_size=1)
    truth: dict[int, list[tuple[Any, ...]]] = {}
    for instance in task.instances:
        truth.setdefault(instance.doc_id, []).append(instance.args)
    for item in benchmark.pool("fresh"):
        number = int(item.item_id.split("/")[1])
        assert [instance.args for instance in item.instances] == truth[number]
        assert item.prompt.count("問題") == 3


def test_the_size_of_the_batch_does_not_change_what_is_right(
    resident: ResidentModel, data: Path
) -> None:
    objective = Objective(
        benchmark=str(data / "benchmarks" / "zoo_ja.yaml"), fresh_items=2, search_items=48
    )
    benchmark = open_benchmark(objective, "objectives.0", seed=0)
    items = benchmark.pool("search")
    scores = []
    for batch in (48, 7):
        raw, _ = Answerer(resident, batch).answer(items)
        scores.append([response.response for response in score(benchmark, items, raw)])
    assert scores[0] == scores[1]


def test_tokens_and_flops_are_those_that_went_through_the_model(
    resident: ResidentModel, data: Path
) -> None:
    """Multiple choice of one item in a batch of one: every token but each choice's last, once."""
    path = data / "benchmarks" / "zoo_ja_choice.yaml"
    objective = Objective(benchmark=str(path), fresh_items=2, search_items=2)
    item = open_benchmark(objective, "objectives.0", seed=0).pool("search")[0]
    _, spent = Answerer(resident, 1).answer([item])
    lengths = [
        len(resident.tokenizer(prompt + choice)["input_ids"]) - 1
        for prompt, choice in (instance.args for instance in item.instances)
    ]
    assert spent.tokens == sum(lengths)
    attention = sum(4 * 4 * 128 * n * n / 2 for n in lengths)  # 4 layers, width 128
    assert spent.flops == pytest.approx(2 * resident.parameter_count * sum(lengths) + attention)


def test_a_metric_without_item_scores_of_0_and_1_is_refused(
    resident: ResidentModel, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "graded.yaml"
    path.write_text(
        f"include: {data}/benchmarks/zoo_ja_choice.yaml\ntask: graded\n"
        "metric_list: [{metric: brier_score}]\n",
        encoding="utf-8",
    )
    objective = Objective(benchmark=str(path), fresh_items=2, search_items=2)
    benchmark = open_benchmark(objective, "objectives.0", seed=0)
    items = benchmark.pool("search")
    raw, _ = Answerer(resident, 8).answer(items)
    responses = score(benchmark, items, raw)
    assert all(r.response is None and "brier_score" in str(r.reason) for r in responses)


def test_an_answer_that_is_graded_is_an_input_error(data: Path) -> None:
    path = data / "benchmarks" / "zoo_ja.yaml"
    objective = Objective(benchmark=str(path), fresh_items=2, search_items=2)
    benchmark = open_benchmark(objective, "objectives.0", seed=0)
    item = benchmark.items[0]
    benchmark.task.process_results = lambda doc, results: {"exact_match": 0.5}
    with pytest.raises(InputError, match=r"exact_match gives 0\.5 for an item"):
        score(benchmark, [item], [[["#### 1"]]])
