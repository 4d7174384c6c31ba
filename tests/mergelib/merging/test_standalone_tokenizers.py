"""Tokenizers in what `mergeflow merge` writes: aligned, or with a chat template."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mergelib.errors import InputError
from tests.mergelib.merging.test_standalone import (
    assert_same_tensors,
    by_mergekit,
    frankenmerge,
    linear,
    merged,
    with_base,
)


def add_token(source: Path, target: Path, token: str, rows: int) -> None:
    """A copy of a model with a token of its own and a longer vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens([token])
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model.resize_token_embeddings(rows, mean_resizing=False)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


@pytest.mark.parametrize(
    "options",
    [
        {"tokenizer_source": "union"},
        {"tokenizer_source": "base"},
        {"tokenizer": {"source": "union", "pad_to_multiple_of": 16}, "chat_template": "chatml"},
        {"tokenizer": {"source": "union", "tokens": {"<one>": {"force": True}}}},
    ],
)
def test_vocabularies_are_aligned_as_mergekit_does(options, llama, tmp_path):
    one = tmp_path / "one"
    add_token(llama.one.folder, one, "<one>", 590)
    if "tokens" in options.get("tokenizer", {}):
        options["tokenizer"]["tokens"]["<one>"]["source"] = str(one)
    config = {**with_base(llama, "task_arithmetic"), **options}
    config["models"][0]["model"] = str(one)
    out = merged(config, tmp_path)
    theirs = by_mergekit(config, tmp_path / "theirs")
    assert_same_tensors(out, theirs)
    ours, expected = (AutoTokenizer.from_pretrained(folder) for folder in (out, theirs))
    assert ours.get_vocab() == expected.get_vocab()
    assert ours.chat_template == expected.chat_template
    assert AutoConfig.from_pretrained(out).vocab_size == {"union": 590, "base": 589}.get(
        options.get("tokenizer_source"), 592 if "chat_template" in options else 590
    )


@pytest.mark.parametrize("template", ["chatml", "auto", "{{ messages }} and a template's text"])
def test_a_chat_template_is_set_as_mergekit_does(template, llama, tmp_path):
    one = tmp_path / "one"
    shutil.copytree(llama.one.folder, one)
    (one / "chat_template.jinja").write_text("{{ messages }} of one")
    config = linear(llama, chat_template=template, base_model=str(one))
    config["models"][0]["model"] = str(one)
    out = merged(config, tmp_path)
    theirs = by_mergekit(config, tmp_path / "theirs")
    template = AutoTokenizer.from_pretrained(out).chat_template
    assert template
    assert template == AutoTokenizer.from_pretrained(theirs).chat_template
    assert (out / "tokenizer.json").read_bytes() == (theirs / "tokenizer.json").read_bytes()


def test_a_bad_chat_template_is_told_before_anything_is_merged(llama, tmp_path):
    for more in ({}, {"tokenizer_source": "union"}):
        with pytest.raises(InputError, match=r"recipe.yaml: chat_template: .*no-such-template"):
            merged(linear(llama, chat_template="no-such-template", **more), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_other_vocabularies_need_a_tokenizer_option_also_in_slices(llama, tmp_path):
    add_token(llama.one.folder, tmp_path / "one", "<one>", 590)
    for config in (linear(llama), frankenmerge(llama)):
        text = yaml.safe_dump(config).replace(str(llama.one.folder), str(tmp_path / "one"))
        with pytest.raises(InputError, match="vocab_size is"):
            merged(yaml.safe_load(text), tmp_path)
    assert not (tmp_path / "out").exists()
