"""Which models the fast path takes: known obstacles, and what only a trial finds out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.decoder import Decoder
from mergelib.benchmarks.trial import obstacle
from mergelib.merging.resident import ResidentModel

from .conftest import SIZE, WINDOW

Open = Callable[..., ResidentModel]


class OwnPositions(LlamaForCausalLM):
    """Counts positions itself, whatever it is told."""

    def forward(self, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class TooLarge(LlamaForCausalLM):
    """Finds no memory, whatever it is told."""

    def forward(self, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")


class OwnMask(LlamaForCausalLM):
    """Lets each token see all before it, whatever it is told."""

    def forward(self, *args: Any, position_ids: Any = None, attention_mask: Any = None, **k: Any):
        return super().forward(*args, position_ids=position_ids, **k)


class OwnCache(LlamaForCausalLM):
    """Takes no cache but one."""

    def forward(self, *args: Any, position_ids: Any = None, past_key_values: Any = None, **k: Any):
        if past_key_values is not None and not isinstance(past_key_values, DynamicCache):
            raise TypeError("past_key_values must be\na DynamicCache")
        return super().forward(*args, position_ids=position_ids, **k)


def test_a_lack_of_memory_says_nothing_of_the_model() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        obstacle(Decoder(TooLarge(LlamaConfig(vocab_size=90, **SIZE)).eval()))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (OwnPositions, "a trial's logits are off by"),
        (OwnMask, "a trial's logits are off by"),
        (OwnCache, "a trial failed: past_key_values must be a DynamicCache"),
    ],
)
def test_a_model_that_does_otherwise_than_told_is_found_out(kind: Any, said: str) -> None:
    torch.manual_seed(0)
    model = kind(LlamaConfig(vocab_size=90, **SIZE)).eval()
    reason = obstacle(Decoder(model))
    assert reason is not None
    assert reason.startswith(said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_encoder_decoder": True}, "it is no decoder-only model"),
        ({"_attn_implementation": "flex_attention"}, "its attention is flex_attention"),
        ({"layer_types": ["chunked_attention"] * 3}, "its layers are chunked_attention"),
        ({"rope_parameters": {"x": {"rope_type": "dynamic"}}}, "its rotary embedding is dynamic"),
    ],
)
def test_what_the_configuration_tells_is_not_tried(change: dict[str, Any], said: str) -> None:
    model = LlamaForCausalLM(LlamaConfig(vocab_size=90, attention_chunk_size=8, **SIZE))
    for name, value in change.items():
        setattr(model.config, name, value)
    assert Decoder(model).obstacle() == said


@pytest.mark.parametrize(
    ("architecture", "window", "shares"),
    [("llama", False, True), ("qwen2", False, True), ("mistral", True, False)],
)
def test_rows_share_a_beginning_where_no_window_cuts_it(
    open_model: Open, architecture: str, window: bool, shares: bool
) -> None:
    decoder = Decoder(open_model(architecture).model)
    assert obstacle(decoder) is None
    assert (decoder.has_window, decoder.shares) == (window, shares)
    assert decoder.config._attn_implementation == "sdpa"


def test_a_window_is_part_of_the_mask(open_model: Open) -> None:
    decoder = Decoder(open_model("gemma2").model)
    assert obstacle(decoder) is None
    seen = torch.ones(1, 1, 1, 30, dtype=torch.bool)
    mask = decoder.mask(seen, 29 - torch.arange(30))
    assert isinstance(mask, dict)
    visible = {kind: int((each == 0).sum()) for kind, each in mask.items()}
    assert visible == {"full_attention": 30, "sliding_attention": WINDOW}


def test_rows_take_a_quarter_of_the_memory_at_most(open_model: Open) -> None:
    decoder = Decoder(open_model("llama").model)
    assert obstacle(decoder) is None
    assert decoder.column_bytes == 3 * 2 * 48 * 4  # layers, keys and values, width, float32
    assert decoder.rows(1) // decoder.rows(1000) in range(1000, 1002)
    assert decoder.rows(10**15) == 1


def test_the_reference_can_be_asked_for(open_model: Open, truth: Callable[..., Any]) -> None:
    items = truth("llama", "choice_0").items
    resident = open_model("llama")
    fast, cheap = Answerer(resident, 8).answer(items)
    slow, dear = Answerer(resident, 8, engine="lm_eval").answer(items)
    assert cheap.tokens < dear.tokens
    for one, other in zip(fast, slow, strict=True):
        assert [a[0][0] for a in one] == pytest.approx([a[0][0] for a in other], abs=1e-3)
