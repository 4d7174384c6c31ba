"""Answers of rounded weights: re-rounded after each merge, the whole weights left alone."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mergelib.benchmarks import quantised
from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.items import open_benchmark
from mergelib.benchmarks.quantised import QuantisedModel
from mergelib.checkpoints import Checkpoint
from mergelib.errors import InputError
from mergelib.merging.resident import ResidentModel
from mergelib.reservations import reservations
from mergelib.search import parse_search
from mergelib.sections.objectives import Objective
from mergelib.workbench import Workbench

Open = Callable[..., ResidentModel]

needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="needs the extra mergeflow[quantization]"
)

LEVELS = {"int8": 127.5, "int4": 7.5}
"""How many steps from 0 to the largest weight of a group."""


@pytest.fixture
def resident(data: Path) -> ResidentModel:
    return ResidentModel(Checkpoint("math", data / "zoo" / "math"), "cpu", "float32")


def _linear(model: Any) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if type(module) is nn.Linear}


def _steps(weight: torch.Tensor, bits: str) -> torch.Tensor:
    """The distance between two levels at each weight."""
    width = weight.shape[1]
    group = width if bits == "int8" else next(g for g in (128, 64, 32, width) if width % g == 0)
    parts = weight.view(weight.shape[0], -1, group)
    return (parts.abs().amax(-1, keepdim=True) / LEVELS[bits]).expand_as(parts).reshape_as(weight)


@needs_torchao
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_linear_weights_are_rounded_to_the_nearest_level(
    resident: ResidentModel, bits: Any
) -> None:
    before = {name: value.clone() for name, value in resident.model.state_dict().items()}
    model = QuantisedModel(resident, bits).model
    states = torch.randn(3, resident.model.config.hidden_size)
    for name, layer in _linear(resident.model).items():
        if name == "lm_head":
            continue
        own, step = _linear(model)[name], _steps(layer.weight, bits)
        levels = own.weight.dequantize() / step
        assert torch.allclose(levels, levels.round(), atol=1e-3)
        assert ((levels - layer.weight / step).abs() < 0.501).all()
        if layer.in_features == states.shape[1]:
            truth = nn.functional.linear(states, own.weight.dequantize())
            assert torch.allclose(own(states), truth, atol=1e-4)
    head = model.get_output_embeddings().weight
    assert head is resident.model.get_output_embeddings().weight
    assert all(torch.equal(v, before[n]) for n, v in resident.model.state_dict().items())


@needs_torchao
@pytest.mark.parametrize("engine", ["auto", "lm_eval"])
def test_answers_follow_the_weights_that_are_written(
    data: Path, resident: ResidentModel, engine: Any
) -> None:
    path = str(data / "benchmarks" / "zoo_de_choice.yaml")
    items = open_benchmark(Objective(benchmark=path, fresh_items=2), "o", 0).pool("search")[:6]
    answerer = Answerer(resident, 4, engine, "int4")
    first = answerer.answer(items)[0]
    assert first != Answerer(resident, 4, engine).answer(items)[0]
    resident.write(Checkpoint("ja", data / "zoo" / "ja").tensors())
    second = answerer.answer(items)[0]
    assert second != first
    fresh = Answerer(resident, 4, engine, "int4").answer(items)[0]
    assert second == fresh


@needs_torchao
def test_both_engines_see_the_same_rounded_weights(data: Path, resident: ResidentModel) -> None:
    path = str(data / "benchmarks" / "zoo_de_choice.yaml")
    items = open_benchmark(Objective(benchmark=path, fresh_items=2), "o", 0).pool("search")[:6]
    fast, slow = (Answerer(resident, 4, e, "int8").answer(items)[0] for e in ("auto", "lm_eval"))
    for one, other in zip(fast, slow, strict=True):
        for (answer,), (truth,) in zip(one, other, strict=True):
            assert answer[0] == pytest.approx(truth[0], abs=1e-3)


@needs_torchao
def test_layers_of_other_kinds_are_refused(open_model: Open) -> None:
    with pytest.raises(InputError, match=r"quantization: .* is in no linear layer") as refused:
        QuantisedModel(open_model("qwen3_moe"), "int8")
    assert len(str(refused.value).splitlines()) == 1


def test_without_torchao_one_line_says_how_to_install_it(
    resident: ResidentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"^compute\.quantization: int4 .*mergeflow\[quant"):
        QuantisedModel(resident, "int4")


@needs_torchao
def test_it_decides_an_evaluation_and_is_told(search_content: dict[str, Any]) -> None:
    digests = {}
    for bits in ("none", "int8", "int4"):
        search_content["compute"] = {"quantization": bits}
        bench = Workbench(parse_search(search_content, "here"))
        name, benchmark = next(iter(bench.benchmarks.items()))
        asked = {name: [benchmark.items[0].item_id]}
        digests[bits] = bench.evaluation_digest(bench.search.base, asked)
        assert any(bits in sentence for sentence in reservations(bench)) == (bits != "none")
    assert len(set(digests.values())) == 3
