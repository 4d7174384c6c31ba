import shutil
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mergelib.checkpoints import Checkpoint

VOCABULARY = 589
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Family:
    """A base model and two models "fine-tuned" from it, by the names used in recipes."""

    base: Checkpoint
    one: Checkpoint
    two: Checkpoint

    @property
    def checkpoints(self) -> Mapping[str, Checkpoint]:
        return {"base": self.base, "one": self.one, "two": self.two}

    @property
    def folders(self) -> Mapping[str, Path]:
        return {name: checkpoint.folder for name, checkpoint in self.checkpoints.items()}


def _save_family(
    model: PreTrainedModel, root: Path, tokenizer: Path, dtype: torch.dtype | None = None
) -> Family:
    """Save a base model and two changed ones, in `dtype` or in the model's own type."""
    checkpoints = {}
    start = {name: value.clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        for name, spread in (("base", 0.0), ("one", 0.05), ("two", 0.02)):
            for parameter_name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape) * spread
                parameter.copy_(start[parameter_name] + noise.to(parameter.dtype))
            saved = model if dtype is None else deepcopy(model).to(dtype)
            saved.save_pretrained(root / name)
            for file in TOKENIZER:
                shutil.copy(tokenizer / file, root / name)
            checkpoints[name] = Checkpoint(name, root / name)
    return Family(**checkpoints)


def _llama(root: Path, tokenizer: Path, dtype: torch.dtype) -> Family:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return _save_family(LlamaForCausalLM(config).to(dtype), root, tokenizer)


def _qwen2(root: Path, tokenizer: Path, dtype: torch.dtype) -> Family:
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return _save_family(Qwen2ForCausalLM(config), root, tokenizer, dtype)


@pytest.fixture(scope="session")
def llama(tmp_path_factory, data) -> Family:
    """Llama models in bfloat16 with a head of their own."""
    return _llama(tmp_path_factory.mktemp("llama"), data / "zoo" / "base", torch.bfloat16)


@pytest.fixture(scope="session")
def llama_float32(tmp_path_factory, data) -> Family:
    """The same in float32."""
    return _llama(tmp_path_factory.mktemp("llama32"), data / "zoo" / "base", torch.float32)


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory, data) -> Family:
    """Qwen2 models in float32: biases, fewer key-value heads, the head tied to the embeddings."""
    return _qwen2(tmp_path_factory.mktemp("qwen2"), data / "zoo" / "base", torch.float32)


@pytest.fixture(scope="session")
def qwen2_bfloat16(tmp_path_factory, data) -> Family:
    """The same in bfloat16."""
    return _qwen2(tmp_path_factory.mktemp("qwen2bf16"), data / "zoo" / "base", torch.bfloat16)


@pytest.fixture(scope="session")
def families(llama, llama_float32, qwen2, qwen2_bfloat16) -> Mapping[str, Family]:
    """Every architecture in every type."""
    return {
        "llama-bfloat16": llama,
        "llama-float32": llama_float32,
        "qwen2-bfloat16": qwen2_bfloat16,
        "qwen2-float32": qwen2,
    }


@pytest.fixture(scope="session")
def sharded(llama, tmp_path_factory) -> Checkpoint:
    """The Llama base model in several weight files."""
    folder = tmp_path_factory.mktemp("sharded") / "base"
    model = LlamaForCausalLM.from_pretrained(llama.base.folder, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="30KB")
    for file in TOKENIZER:
        shutil.copy(llama.base.folder / file, folder)
    return Checkpoint("sharded", folder)
