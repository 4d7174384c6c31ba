from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from mergelib.benchmarks import products
from mergelib.benchmarks.products import Products, product

from .conftest import SIZE


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 300), (30, 300), (2, 7, 300)])
def test_onednn_computes_what_torch_does(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, states = nn.Linear(300, 4000, bias=bias), torch.randn(shape)
    assert states.numel() * layer.out_features > products._LEAST
    with torch.inference_mode():
        truth = functional.linear(states.double(), layer.weight.double()) + (
            layer.bias.double() if bias else 0
        )
        off = (product(layer, states) - truth).abs().max()
        assert off < 1e-5


def test_layers_are_quick_for_a_while_and_then_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "_is_faster", lambda: True)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=90, **SIZE)).eval()
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    with pytest.raises(KeyError), Products(model).quick():  # noqa: PT012 (the state inside counts)
        assert all("forward" in vars(layer) for layer in layers)
        raise KeyError
    assert not any("forward" in vars(layer) for layer in layers)


def test_other_types_and_other_layers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quantised(nn.Linear):
        pass

    monkeypatch.setattr(products, "_is_faster", lambda: True)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=90, **SIZE)).eval()
    model.lm_head = Quantised(SIZE["hidden_size"], 90)
    hooked = model.model.layers[1].mlp.up_proj
    own = hooked.forward = lambda states: states
    with Products(model).quick():
        assert "forward" not in vars(model.lm_head)
        assert hooked.forward is own
        assert "forward" in vars(model.model.layers[0].mlp.up_proj)
    assert hooked.forward is own
    with Products(model.bfloat16()).quick():
        assert "forward" not in vars(model.model.layers[0].mlp.up_proj)


@pytest.mark.parametrize(("vendor", "faster"), [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_the_processor_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str, faster: bool
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"vendor_id\t: {vendor}\n")
    monkeypatch.setattr(products, "_CPUINFO", file)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    products._is_faster.cache_clear()
    assert products._is_faster() == (faster and torch.backends.mkldnn.is_available())
    products._is_faster.cache_clear()
