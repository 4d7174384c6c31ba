import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergelib.checkpoints import Checkpoint, TensorInfo, check_compatible, open_checkpoint
from mergelib.errors import InputError

NORM = "model.norm.weight"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def copy(llama, tmp_path):
    """A copy of a Llama endpoint, to be damaged at will."""
    return shutil.copytree(llama.one.folder, tmp_path / "copy")


def refusal(folder, key="endpoints.0") -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(folder), key)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{key}: ")
    assert str(folder) in message
    return message


def change_config(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def change_tensors(folder, **changes) -> None:
    """Replace tensors by name; None takes one away."""
    tensors = load_file(folder / "model.safetensors") | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


# Opening ------------------------------------------------------------------------------------------


def test_opens_a_folder(llama):
    checkpoint = open_checkpoint(str(llama.one.folder), "endpoints.0")
    assert checkpoint.name == "one"
    assert checkpoint.config["model_type"] == "llama"
    assert checkpoint.tensor_infos[NORM] == TensorInfo((32,), "BF16")
    tensors = dict(checkpoint.tensors())
    assert tensors.keys() == checkpoint.tensor_infos.keys()
    assert all(tuple(tensors[n].shape) == i.shape for n, i in checkpoint.tensor_infos.items())


@pytest.mark.parametrize(
    ("reference", "name"), [("zoo/base", "base"), ("/a/b/", "b"), ("owner/name@main", "name@main")]
)
def test_a_short_name_for_tables(reference, name, tmp_path):
    assert Checkpoint(reference, tmp_path).name == name


def test_no_folder(tmp_path):
    message = refusal(tmp_path / "nowhere", "base")
    assert message.endswith("no such folder, and a hub id is owner/name")


def test_a_hub_id_that_is_not_to_be_had(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    message = refusal("nobody-at-all/no-such-model", "base")
    assert "no such folder, and not to be had from the hub: " in message
    assert "no such folder, and not to be had" in refusal("a b/c d", "base")


def test_no_config(copy):
    (copy / "config.json").unlink()
    assert "has no config.json" in refusal(copy)


@pytest.mark.parametrize("content", ["{", "[]", '"text"', "\x00"])
def test_a_damaged_config(content, copy):
    (copy / "config.json").write_text(content)
    assert "config.json" in refusal(copy)


def test_no_weights(copy):
    (copy / "model.safetensors").unlink()
    assert "needs *.safetensors, found none; convert it with" in refusal(copy)


def test_pickled_weights_only(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "found only pytorch_model.bin, which can run code when loaded" in refusal(copy)


@pytest.mark.parametrize("damage", ["half", "header", "empty"])
def test_a_damaged_weight_file(damage, copy):
    file = copy / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(
        {"half": content[: len(content) // 2], "header": b"\xff" + content[1:], "empty": b""}[
            damage
        ]
    )
    assert "a weight file is damaged: " in refusal(copy)


def test_a_missing_shard(sharded, tmp_path):
    folder = shutil.copytree(sharded.folder, tmp_path / "copy")
    missing = sorted(folder.glob("*.safetensors"))[1]
    missing.unlink()
    assert f"{missing.name} is missing; download it again" in refusal(folder)


def test_a_damaged_index(sharded, tmp_path):
    folder = shutil.copytree(sharded.folder, tmp_path / "copy")
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "model.safetensors.index.json is damaged" in refusal(folder)


# Several files ------------------------------------------------------------------------------------


def test_a_sharded_checkpoint_holds_the_same_tensors(sharded, llama):
    assert len(sharded.files) > 2
    assert sharded.tensor_infos == llama.base.tensor_infos
    single = dict(llama.base.tensors())
    assert all(torch.equal(tensor, single[name]) for name, tensor in sharded.tensors())
    check_compatible([("base", llama.base), ("endpoints.0", sharded)])


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_a_second_copy_of_the_weights_is_left_alone(kind, llama, sharded, tmp_path):
    """Mistral's folders hold the weights again, under other names."""
    original = {"single": llama.base, "sharded": sharded}[kind]
    folder = shutil.copytree(original.folder, tmp_path / "copy")
    save_file({"layers.0.attention.wk.weight": torch.ones(2)}, folder / "consolidated.safetensors")
    opened = open_checkpoint(str(folder), "base")
    assert opened.tensor_infos == original.tensor_infos
    assert opened.fingerprint == original.fingerprint


# Fingerprints -------------------------------------------------------------------------------------


def test_the_fingerprint_does_not_depend_on_the_folders_place(copy, llama):
    assert Checkpoint("elsewhere", copy).fingerprint == llama.one.fingerprint
    assert llama.one.fingerprint != llama.two.fingerprint
    assert len(llama.one.fingerprint) == 64


def test_the_fingerprint_does_not_depend_on_what_decides_nothing(copy, llama):
    (copy / "README.md").write_text("A card.")
    assert Checkpoint("copy", copy).fingerprint == llama.one.fingerprint


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_flipped_byte_changes_the_fingerprint(name, copy, llama):
    content = bytearray((copy / name).read_bytes())
    content[-9] ^= 1
    (copy / name).write_bytes(content)
    assert Checkpoint("copy", copy).fingerprint != llama.one.fingerprint


@pytest.mark.parametrize("name", ["chat_template.jinja", "merges.txt", "vocab.json"])
def test_a_further_tokenizer_file_changes_the_fingerprint(name, copy, llama):
    (copy / name).write_text("{}")
    assert Checkpoint("copy", copy).fingerprint != llama.one.fingerprint


# Fitting together ---------------------------------------------------------------------------------


def difference(llama, folder) -> str:
    with pytest.raises(InputError) as caught:
        check_compatible([("base", llama.base), ("endpoints.0", Checkpoint("copy", folder))])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_family_fits_together(llama, qwen2):
    for family in (llama, qwen2):
        check_compatible(list(family.checkpoints.items()))


def test_another_architecture(llama, qwen2):
    message = difference(llama, qwen2.one.folder)
    assert message == (
        "endpoints.0: copy: architectures is ['Qwen2ForCausalLM'], but ['LlamaForCausalLM'] in "
        "base; models to merge must agree"
    )


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size"])
def test_another_size(key, llama, copy):
    change_config(copy, **{key: 7})
    assert difference(llama, copy).startswith(f"endpoints.0: copy: {key} is 7, but ")


def test_another_shape(llama, copy):
    change_tensors(copy, **{UP: torch.zeros(50, 32)})
    expected = f"endpoints.0: tensor {UP} has shape [50, 32], but [48, 32] in base"
    assert difference(llama, copy) == expected


def test_a_missing_tensor(llama, copy):
    change_tensors(copy, **{UP: None})
    assert difference(llama, copy) == f"endpoints.0: tensor {UP} is in base and not in endpoints.0"


def test_a_tensor_too_many(llama, copy):
    change_tensors(copy, extra=torch.zeros(1))
    assert difference(llama, copy) == "endpoints.0: tensor extra is in endpoints.0 and not in base"


def test_another_type_fits(llama, copy):
    tensors = load_file(copy / "model.safetensors")
    change_tensors(copy, **{name: tensor.float() for name, tensor in tensors.items()})
    check_compatible([("base", llama.base), ("endpoints.0", Checkpoint("copy", copy))])
