import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mergelib.checkpoints import Checkpoint
from mergelib.errors import InputError
from mergelib.merging.standalone import merge_to_folder


def write(tmp_path: Path, config: Mapping[str, Any]) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    return file


def merged(config: Mapping[str, Any], tmp_path: Path, **options: Any) -> Path:
    out = tmp_path / "out"
    merge_to_folder(write(tmp_path, config), out, **options)
    return out


def by_mergekit(config: Mapping[str, Any], out: Path) -> Path:
    run_merge(
        MergeConfiguration.model_validate(dict(config)),
        str(out),
        MergeOptions(quiet=True, lora_merge_cache=str(out) + "-adapters"),
    )
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(Checkpoint(str(folder), folder).tensors())


def assert_same_tensors(folder: Path, other: Path) -> None:
    got, expected = tensors(folder), tensors(other)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        assert torch.equal(got[name], value), name


def linear(family: Any, **more: Any) -> dict[str, Any]:
    models = [(family.one, 0.3), (family.two, 0.7)]
    entries = [{"model": str(m.folder), "parameters": {"weight": w}} for m, w in models]
    return {"merge_method": "linear", "models": entries, **more}


def with_base(family: Any, method: str, **shared: Any) -> dict[str, Any]:
    config = linear(family, dtype="float32", out_dtype="bfloat16", parameters=shared)
    return {**config, "merge_method": method, "base_model": str(family.base.folder)}


def layers(checkpoint: Checkpoint, start: int, end: int) -> dict[str, Any]:
    return {"model": str(checkpoint.folder), "layer_range": [start, end]}


def frankenmerge(family: Any, **more: Any) -> dict[str, Any]:
    slices = [[layers(family.one, 0, 2)], [layers(family.two, 0, 1)], [layers(family.one, 1, 2)]]
    return {
        "merge_method": "passthrough",
        "slices": [{"sources": sources} for sources in slices],
        **more,
    }


def blend_of_slices(family: Any) -> dict[str, Any]:
    slices = [
        {"sources": [layers(family.one, 0, 1), layers(family.two, 0, 1)], "parameters": {"t": 0.3}},
        {"sources": [layers(family.one, 1, 2), layers(family.two, 1, 2)], "parameters": {"t": 0.8}},
    ]
    base = str(family.one.folder)
    return {"merge_method": "slerp", "base_model": base, "slices": slices, "dtype": "float32"}


GRADIENTS = [
    {"filter": "self_attn", "value": [0.1, 0.9]},
    {"filter": "mlp", "value": [0.7, 0.2, 0.4]},
    {"value": 0.5},
]

RECIPES = {
    "frankenmerge": frankenmerge,
    "frankenmerge in float32": lambda family: frankenmerge(family, dtype="float32"),
    "slices": blend_of_slices,
    "gradients and filters": lambda family: with_base(family, "task_arithmetic", weight=GRADIENTS),
    "task arithmetic": lambda family: with_base(family, "task_arithmetic"),
    "ties": lambda family: with_base(family, "ties", density=0.4),
    "no dtype": linear,
    "bfloat16": lambda family: linear(family, dtype="bfloat16"),
    "float32": lambda family: linear(family, dtype="float32"),
    "float16 out": lambda family: linear(family, dtype="float32", out_dtype="float16"),
}


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_writes_what_mergekit_writes(kind, family, request, tmp_path):
    models = request.getfixturevalue(family)
    config = RECIPES[kind](models)
    out = merged(config, tmp_path)
    if family == "qwen2" and "frankenmerge" in kind:
        # Mergekit leaves as many layer_types as the base has, and transformers then refuses.
        with pytest.raises(Exception, match="layer_types"):
            by_mergekit(config, tmp_path / "theirs")
    else:
        theirs = by_mergekit(config, tmp_path / "theirs")
        ours_config, their_config = (
            json.loads((folder / "config.json").read_text()) for folder in (out, theirs)
        )
        if "dtype" in config or "out_dtype" in config:
            assert ours_config == their_config
        assert {**ours_config, "dtype": ""} == {**their_config, "dtype": ""}
    assert_same_tensors(out, tmp_path / "theirs")
    opened = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert {value.dtype for value in tensors(out).values()} == {opened.dtype}


def test_the_folder_is_complete(llama, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(llama.base.folder, base)
    (base / "generation_config.json").write_text('{ "temperature": 0.5 }')
    (base / "special_tokens_map.json").write_text("{ }")
    config = with_base(llama, "ties", density=0.5)
    config["base_model"] = str(base)
    recipe = tmp_path / "my-merge.yaml"
    text = "# kept: `日本語`\r\n" + yaml.safe_dump(config, sort_keys=False)
    recipe.write_bytes(text.encode())
    out = tmp_path / "new" / "folders" / "out"
    merge_to_folder(recipe, out)
    assert (out / "mergekit_config.yml").read_bytes() == text.encode()
    for name in ("generation_config.json", "special_tokens_map.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    card = (out / "README.md").read_bytes().decode()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "base_model": ["one", "two", "base"],
        "tags": ["mergeflow", "mergekit", "merge"],
    }
    assert body.startswith("# my-merge\n")
    assert "`ties`" in body
    assert text.rstrip("\n") in body
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    modes = {file.stat().st_mode for file in out.iterdir()}
    assert len(modes) == 1
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]
    # mergekit merges the copy of the recipe to the same tensors.
    copied = yaml.safe_load((out / "mergekit_config.yml").read_bytes())
    assert_same_tensors(out, by_mergekit(copied, tmp_path / "theirs"))


def test_types_that_differ_from_tensor_to_tensor_are_kept(llama, tmp_path):
    """Without a dtype each tensor has the type that its sources promote to."""
    one = tmp_path / "one"
    shutil.copytree(llama.one.folder, one)
    weights = load_file(one / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].float() + 1e-7
    save_file(weights, one / "model.safetensors", {"format": "pt"})
    config = linear(llama)
    config["models"][0]["model"] = str(one)
    out = merged(config, tmp_path)
    assert_same_tensors(out, by_mergekit(config, tmp_path / "theirs"))
    assert len({value.dtype for value in tensors(out).values()}) == 2
    # Opened in the wider type, nothing is rounded.
    assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.float32


def test_models_are_found_from_the_current_directory_and_in_mergekits_mapping(
    llama, tmp_path, monkeypatch
):
    folder = tmp_path / "c++"
    shutil.copytree(llama.one.folder, folder / "one@home")
    monkeypatch.chdir(tmp_path)
    config = linear(llama)
    config["models"][0]["model"] = {"model": {"path": "c++/one@home"}}
    out = merged(config, tmp_path)
    assert_same_tensors(out, by_mergekit(linear(llama), tmp_path / "theirs"))
    assert "- one@home\n" in (out / "README.md").read_text()


@pytest.mark.parametrize("other", ["./two", "link"])
def test_two_names_of_one_folder_are_refused(other, llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("two", "link"):
        Path(name).symlink_to(llama.two.folder)
    config = linear(llama)
    config["models"][0]["model"] = "two"
    config["models"][1]["model"] = other
    with pytest.raises(InputError, match=rf"models\.1\.model: '{other}' is the folder of 'two'"):
        merged(config, tmp_path)


def save_adapter(base: Path, folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value)
        adapted.save_pretrained(folder)


def test_adapters_are_merged_as_mergekit_does(llama, tmp_path):
    save_adapter(llama.base.folder, tmp_path / "adapter")
    config = linear(llama, dtype="float32")
    config["models"][0]["model"] = f"{llama.base.folder}+{tmp_path / 'adapter'}"
    out = merged(config, tmp_path)
    assert_same_tensors(out, by_mergekit(config, tmp_path / "theirs"))
    assert "- base\n- adapter\n- two\n" in (out / "README.md").read_text()


def deeper(family: Any, folder: Path, depth: int) -> Checkpoint:
    """A model like the family's, of another depth."""
    kind = Qwen2Config if (family.base.config["model_type"] == "qwen2") else LlamaConfig
    config = kind.from_pretrained(family.base.folder)
    values = {**config.to_dict(), "num_hidden_layers": depth}
    values.pop("layer_types", None)
    config = kind(**values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = {LlamaConfig: LlamaForCausalLM, Qwen2Config: Qwen2ForCausalLM}[kind](config)
    model.to(torch.bfloat16 if kind is LlamaConfig else torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(family.base.folder / name, folder)
    return Checkpoint("deeper", folder)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_slices_may_come_from_models_of_other_depths(family, request, tmp_path):
    models = request.getfixturevalue(family)
    other = deeper(models, tmp_path / "deeper", 5)
    config = frankenmerge(models)
    config["slices"].append({"sources": [layers(other, 3, 5)]})
    out = merged(config, tmp_path)
    assert AutoConfig.from_pretrained(out).num_hidden_layers == 6
    assert torch.equal(
        tensors(out)["model.layers.5.mlp.up_proj.weight"],
        tensors(other.folder)["model.layers.4.mlp.up_proj.weight"],
    )
    config["slices"][-1]["sources"][0]["layer_range"] = [3, 6]
    with pytest.raises(InputError, match=r"layer_range: \[3, 6\] goes past the 5 layers"):
        merge_to_folder(write(tmp_path, config), tmp_path / "other")
    whole = linear(models)
    whole["models"][1]["model"] = str(other.folder)
    with pytest.raises(InputError, match="num_hidden_layers is 5, but"):
        merge_to_folder(write(tmp_path, whole), tmp_path / "other")


@pytest.mark.parametrize("there", ["folder", "file", "dangling link"])
def test_what_is_there_already_is_left_alone(there, llama, tmp_path):
    out = tmp_path / "out"
    if there == "folder":
        out.mkdir()
    elif there == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"{out}: is there already; name a folder that is not"):
        merged(linear(llama), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "recipe.yaml"]


def test_a_place_that_cannot_be_a_folder_is_told_first(llama, tmp_path):
    (tmp_path / "file").write_text("mine")
    recipe = write(tmp_path, linear(llama))
    with pytest.raises(InputError, match="file is no folder; name another place"):
        merge_to_folder(recipe, tmp_path / "file" / "out")


def test_the_seed_decides_the_masks(llama, tmp_path):
    config = with_base(llama, "dare_ties", density=0.5)
    recipe = write(tmp_path, config)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        merge_to_folder(recipe, tmp_path / name, seed=seed)
    a, b, c = (
        {f.relative_to(tmp_path / n): f.read_bytes() for f in (tmp_path / n).rglob("*")}
        for n in "abc"
    )
    assert a == b
    assert {str(name) for name in a if a[name] != c[name]} == {"model.safetensors", "README.md"}


REMOTE_MODEL = """
from transformers import LlamaConfig, LlamaForCausalLM

class MyConfig(LlamaConfig):
    model_type = "my_llama"

class MyLlama(LlamaForCausalLM):
    config_class = MyConfig
"""


def test_a_model_with_its_own_code_needs_trust_and_keeps_its_code(llama, tmp_path):
    config = linear(llama)
    for entry, checkpoint in zip(config["models"], (llama.one, llama.two), strict=True):
        folder = tmp_path / checkpoint.folder.name
        shutil.copytree(checkpoint.folder, folder)
        content = json.loads((folder / "config.json").read_text())
        content |= {"model_type": "my_llama", "architectures": ["MyLlama"]}
        content["auto_map"] = {
            "AutoConfig": "modeling_mine.MyConfig",
            "AutoModelForCausalLM": "modeling_mine.MyLlama",
        }
        (folder / "config.json").write_text(json.dumps(content))
        (folder / "modeling_mine.py").write_text(REMOTE_MODEL)
        entry["model"] = str(folder)
    recipe = write(tmp_path, config)
    with pytest.raises(InputError, match="trust"):
        merge_to_folder(recipe, tmp_path / "out")
    merge_to_folder(recipe, tmp_path / "out", trust_remote_code=True)
    assert (tmp_path / "out" / "modeling_mine.py").read_text() == REMOTE_MODEL
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert type(opened).__name__ == "MyLlama"
