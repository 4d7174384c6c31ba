"""The fast path gives what lm-eval gives, whatever the architecture."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mergelib.benchmarks import products
from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.scoring import score
from mergelib.merging.resident import ResidentModel

from .conftest import ARCHITECTURES, Truth

Open = Callable[..., ResidentModel]
Ask = Callable[..., Truth]

SAME_FOR_ALL = [
    ("choice_0", False),
    ("choice_5", False),
    ("text", False),
    ("rolling", False),
    ("choice_5", True),
    ("text", True),
]
FAST = ["llama", "qwen2", "mistral", "mixtral", "qwen3_moe", "gemma2", "gemma3", "gpt2"]


@pytest.fixture(autouse=True)
def small_products_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers this small would be left to torch, and so would all on an Intel processor."""
    monkeypatch.setattr(products, "_LEAST", 0)
    monkeypatch.setattr(products, "_is_faster", torch.backends.mkldnn.is_available)


def _check(resident: ResidentModel, truth: Truth, caplog: pytest.LogCaptureFixture) -> Answerer:
    answerer = Answerer(resident, 7)
    raw, spent = answerer.answer(truth.items)
    for answers, sample in zip(raw, truth.samples, strict=True):
        for (answer,), response in zip(answers, sample["resps"], strict=True):
            _compare(answer, response[0])
    if truth.benchmark.metric in truth.samples[0] and truth.benchmark.name != "rolling":
        values = [response.value for response in score(truth.benchmark, truth.items, raw)]
        assert values == [sample[truth.benchmark.metric] for sample in truth.samples]
    assert spent.tokens > 0
    return answerer


def _compare(answer: Any, true: Any) -> None:
    """Hold an answer to lm-eval's record of its own, which has numbers as strings."""
    if isinstance(answer, str):
        assert answer == true
    elif isinstance(answer, tuple):
        assert answer[0] == pytest.approx(float(true[0]), abs=1e-3)
        assert str(answer[1]) == str(true[1])
    else:
        assert answer == pytest.approx(float(true), abs=1e-3, rel=1e-6)


@pytest.mark.parametrize(("task", "chat"), SAME_FOR_ALL)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
def test_answers_are_those_of_simple_evaluate(
    open_model: Open, truth: Ask, architecture: str, task: str, chat: bool, caplog: Any
) -> None:
    _check(open_model(architecture), truth(architecture, task, chat), caplog)
    assert not [r for r in caplog.records if "own back end" in r.message]


@pytest.mark.parametrize("task", ["choice_5", "text"])
@pytest.mark.parametrize("architecture", [a for a in FAST[3:]])
def test_other_architectures_take_the_fast_path_too(
    open_model: Open, truth: Ask, architecture: str, task: str, caplog: Any
) -> None:
    _check(open_model(architecture), truth(architecture, task), caplog)
    assert not [r for r in caplog.records if "own back end" in r.message]


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("bloom", "it does not take position ids"),
        ("mamba", "it keeps a state that is no attention cache"),
        ("longrope", "its rotary embedding is longrope"),
    ],
)
def test_what_is_not_known_is_left_to_lm_eval_and_said_once(
    open_model: Open, truth: Ask, architecture: str, reason: str, caplog: Any
) -> None:
    asked = truth(architecture, "choice_5")
    with caplog.at_level(logging.WARNING):
        answerer = _check(open_model(architecture), asked, caplog)
        answerer.answer(asked.items[:3])
    (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("mergelib")]
    assert said.endswith(f"answers through lm-eval's own back end: {reason}")


def test_every_architecture_of_the_fixtures_is_held_to_lm_eval() -> None:
    assert set(ARCHITECTURES) == {*FAST, "bloom", "mamba", "longrope"}
