"""Random models to measure with: Llamas of several sizes, and a tokenizer for them."""

import random
from pathlib import Path
from typing import NamedTuple

import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SIZES = {
    "9M": {
        "vocab_size": 8192,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
    },
    "162M": {
        "vocab_size": 32000,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "1B": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "3B": {
        "vocab_size": 32000,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
    },
    "7B": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class Models(NamedTuple):
    """A base model and models to merge, as paths."""

    base: str
    endpoints: list[str]


def random_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of exactly so many tokens."""
    letters = random.Random(0)
    words = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(size)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def random_models(size: str, dtype: str, folder: Path, device: str = "cpu") -> Models:
    """Write a random Llama and two models near it; a GPU makes large ones in seconds."""
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**SIZES[size], tie_word_embeddings=False))
    tokenizer = random_tokenizer(SIZES[size]["vocab_size"])
    start = {name: value.clone() for name, value in model.named_parameters()}
    for name in ("base", "one", "two"):
        with torch.no_grad():
            for tensor, parameter in model.named_parameters():
                spread = 0 if name == "base" else 0.2 * start[tensor].std()
                parameter.copy_(start[tensor] + spread * torch.randn_like(parameter))
        model.to(DTYPES[dtype]).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        model.float()
    return Models(str(folder / "base"), [str(folder / "one"), str(folder / "two")])
