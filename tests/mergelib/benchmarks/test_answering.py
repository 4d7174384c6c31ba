"""Answers and scores are lm-eval's own: held to `simple_evaluate` item by item."""

import copy
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.items import Item, open_benchmark
from mergelib.benchmarks.scoring import score
from mergelib.checkpoints import Checkpoint
from mergelib.errors import InputError
from mergelib.merging.resident import ResidentModel
from mergelib.sections.objectives import Objective

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
    """Multiple choice of one item: each token but each choice's last, what is shared once."""
    path = data / "benchmarks" / "zoo_ja_choice.yaml"
    objective = Objective(benchmark=str(path), fresh_items=2, search_items=2)
    item = open_benchmark(objective, "objectives.0", seed=0).pool("search")[0]
    texts = [
        tuple(resident.tokenizer(prompt + choice)["input_ids"][:-1])
        for prompt, choice in (instance.args for instance in item.instances)
    ]
    depths = [n for n, _ in {(n, text[: n + 1]) for text in texts for n in range(len(text))}]
    _, spent = Answerer(resident, 1).answer([item])
    assert spent.tokens == len(depths)
    attention = sum(4 * 4 * 128 * (n + 0.5) for n in depths)  # 4 layers, width 128
    assert spent.flops == pytest.approx(2 * resident.parameter_count * len(depths) + attention)
    _, slow = Answerer(resident, 1, engine="lm_eval").answer([item])
    assert slow.tokens == sum(map(len, texts))
    attention = sum(4 * 4 * 128 * len(text) ** 2 / 2 for text in texts)
    assert slow.flops == pytest.approx(2 * resident.parameter_count * slow.tokens + attention)


def test_benchmarks_of_all_kinds_are_asked_together(
    open_model: Callable[..., ResidentModel], truth: Callable[..., Any]
) -> None:
    """The order of items is kept, and what was made ready for a set serves other weights."""
    resident = open_model("llama")
    parts = [truth("llama", name) for name in ("choice_5", "text", "rolling", "choice_0")]
    mixed = [item for four in zip(*(part.items for part in parts), strict=True) for item in four]
    answerer = Answerer(resident, 8)
    separate = [answerer.answer(part.items)[0] for part in parts]
    together, _ = answerer.answer(mixed)
    expected = [answer for four in zip(*separate, strict=True) for answer in four]
    assert _rounded(together) == _rounded(expected)
    weight = resident.parameter("model.norm.weight")
    assert weight is not None
    try:
        weight.mul_(-1)
        changed, _ = answerer.answer(mixed)
        anew, _ = Answerer(resident, 8).answer(mixed)
    finally:
        weight.mul_(-1)
    assert _rounded(changed) == _rounded(anew)
    assert _rounded(changed) != _rounded(together)


def _rounded(raw: Any) -> Any:
    if isinstance(raw, list | tuple):
        return [_rounded(part) for part in raw]
    return round(raw, 2) if isinstance(raw, float) else raw


@pytest.mark.parametrize("engine", ["auto", "lm_eval"])
def test_only_what_cannot_be_answered_is_lost(
    open_model: Callable[..., ResidentModel], truth: Callable[..., Any], engine: Any
) -> None:
    choice, text = truth("qwen2", "choice_0"), truth("qwen2", "text")
    items = [*choice.items[:4], *text.items[:3]]
    items[1] = _asking(items[1], 1, (items[1].prompt, ""))
    items[2] = _asking(items[2], 0, (items[2].prompt, " dog" * 500))
    items[5] = _asking(items[5], 0, (items[5].prompt, {"max_gen_toks": 400}))
    raw, _ = Answerer(open_model("qwen2"), 8, engine).answer(items)
    responses = score(choice.benchmark, items[:4], raw[:4])
    responses += score(text.benchmark, items[4:], raw[4:])
    reasons = [str(response.reason) for response in responses]
    assert reasons[1] == "the answer '' has no token of its own"
    assert "the model takes 400 at a time" in reasons[2]
    assert reasons[5].startswith("max_gen_toks is 400")
    assert [r.response for r in responses].count(None) == 3
    whole = [*choice.samples[:4], *text.samples[:3]]
    for place in (0, 3, 4, 6):
        name = "acc" if place < 4 else "exact_match"
        assert responses[place].value == whole[place][name]


def _asking(item: Item, request: int, args: Any) -> Item:
    changed = copy.copy(item.instances[request])
    changed.arguments = args
    instances = (*item.instances[:request], changed, *item.instances[request + 1 :])
    return dataclasses.replace(item, instances=instances, digest=f"{item.digest} {args}")


def test_a_tokenizer_without_a_pad_token_answers_the_same(
    open_model: Callable[..., ResidentModel], truth: Callable[..., Any]
) -> None:
    resident = open_model("qwen2")
    items = truth("qwen2", "choice_5").items + truth("qwen2", "text").items
    expected, _ = Answerer(resident, 8).answer(items)
    pad = resident.tokenizer.pad_token
    resident.tokenizer.pad_token = None
    try:
        assert Answerer(resident, 8).answer(items)[0] == expected
    finally:
        resident.tokenizer.pad_token = pad


def test_what_the_fast_path_does_not_write_lm_eval_writes(
    open_model: Callable[..., ResidentModel],
    truth: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    resident = open_model("llama")
    items = truth("llama", "text").items[:4]
    monkeypatch.setattr(resident.model.generation_config, "repetition_penalty", 1.5)
    answerer = Answerer(resident, 8)
    with caplog.at_level(logging.WARNING):
        raw, _ = answerer.answer(items)
        answerer.answer(items)
    slow, _ = Answerer(resident, 8, engine="lm_eval").answer(items)
    assert raw == slow
    said = [r.getMessage() for r in caplog.records if r.name.startswith("mergelib")]
    assert said == ["text: lm-eval's own back end writes: not the fast path's settings"]


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


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_graded_answer_has_a_value_and_no_response(data: Path, higher_is_better: bool) -> None:
    path = data / "benchmarks" / "zoo_ja.yaml"
    objective = Objective(benchmark=str(path), fresh_items=2, search_items=2)
    benchmark = open_benchmark(objective, "objectives.0", seed=0)
    item = benchmark.items[0]
    benchmark = replace(benchmark, higher_is_better=higher_is_better)
    benchmark.task.process_results = lambda doc, results: {"exact_match": 0.25}
    (graded,) = score(benchmark, [item], [[["#### 1"]]])
    assert (graded.response, graded.reason) == (None, None)
    assert graded.value == (0.25 if higher_is_better else 0.75)
    benchmark.task.process_results = lambda doc, results: {"exact_match": 1.0}
    (whole,) = score(benchmark, [item], [[["#### 1"]]])
    assert whole.response == (1 if higher_is_better else 0)
    benchmark.task.process_results = lambda doc, results: {"exact_match": 3.5}
    with pytest.raises(InputError, match=r"exact_match gives 3\.5 for an item"):
        score(benchmark, [item], [[["#### 1"]]])
