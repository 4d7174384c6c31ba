import json
import shutil
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergelib.checkpoints import Checkpoint, TensorInfo, open_checkpoint
from mergelib.errors import InputError

NORM = "model.norm.weight"


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


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "pytorch_model.bin.index.json"],
)
def test_pickled_weights_only(name, copy):
    (copy / "model.safetensors").rename(copy / name)
    message = refusal(copy)
    assert f"found only {name}, which can run code when loaded" in message
    assert message.endswith("convert it with model.save_pretrained(folder)")


def header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        pytest.param(lambda c: c[:-1], "it has {0} bytes of {1}", id="last byte gone"),
        pytest.param(lambda c: c[: len(c) // 2], "it has {0} bytes of {1}", id="half"),
        pytest.param(lambda c: c[: header_end(c)], "it has {0} bytes of {1}", id="no tensors"),
        pytest.param(lambda c: c[: header_end(c) - 9], "bytes of", id="cut in the header"),
        pytest.param(lambda c: c[:5], "it has 5 bytes of", id="cut in the first number"),
        pytest.param(lambda c: b"", "it has 0 bytes of 8", id="empty"),
        pytest.param(lambda c: c + b"more", "", id="too long"),
        pytest.param(lambda c: b"\xff" + c[1:], "", id="another header length"),
        pytest.param(lambda c: c[:8] + b"[" + c[9:], "", id="no JSON"),
        pytest.param(lambda c: (2).to_bytes(8, "little") + b"[]", "", id="no mapping"),
        pytest.param(lambda c: (10).to_bytes(8, "little") + b'{"a": {}} ', "", id="no offsets"),
    ],
)
def test_a_damaged_weight_file(keep, expected, copy):
    file = copy / "model.safetensors"
    content = file.read_bytes()
    left = keep(content)
    file.write_bytes(left)
    message = refusal(copy)
    assert "model.safetensors is damaged: " in message
    assert expected.format(len(left), len(content)) in message
    assert message.endswith("; download it again")


def test_a_shard_cut_short_is_named(sharded, tmp_path):
    folder = shutil.copytree(sharded.folder, tmp_path / "copy")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    assert f"{shard.name} is damaged: it has " in refusal(folder)


def test_a_tensor_that_only_the_index_lists(sharded, tmp_path):
    folder = shutil.copytree(sharded.folder, tmp_path / "copy")
    name, shard = next(iter(sharded.index.items()))
    tensors = load_file(folder / shard)
    del tensors[name]
    save_file(tensors, folder / shard, metadata={"format": "pt"})
    assert f"{shard} lacks the tensor {name}, which " in refusal(folder)


def test_a_missing_shard(sharded, tmp_path):
    folder = shutil.copytree(sharded.folder, tmp_path / "copy")
    missing = sorted(folder.glob("*.safetensors"))[1]
    missing.unlink()
    assert f"{missing.name} is missing; download it again" in refusal(folder)


@pytest.mark.parametrize(
    "content",
    ["{}", "{", "[]", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}'],
)
def test_a_damaged_index(content, sharded, tmp_path):
    folder = shutil.copytree(sharded.folder, tmp_path / "copy")
    (folder / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json is damaged" in refusal(folder)


def test_an_adapter_without_its_model(copy):
    (copy / "config.json").rename(copy / "adapter_config.json")
    assert "is an adapter; write it as model+adapter" in refusal(copy)


# The hub ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "revision"), [("owner/model", None), ("owner/model@v1", "v1")]
)
@pytest.mark.parametrize("trusted", [False, True])
def test_a_hub_id(reference, revision, trusted, llama, monkeypatch, tmp_path):
    asked = {}

    def download(repository, **options):
        asked.update(options, repository=repository)
        return str(llama.one.folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mergelib.checkpoints.snapshot_download", download)
    checkpoint = open_checkpoint(reference, "base", trust_remote_code=trusted)
    assert checkpoint.folder == llama.one.folder
    assert checkpoint.reference == reference
    assert (asked["repository"], asked["revision"]) == ("owner/model", revision)
    assert "*.safetensors" in asked["allow_patterns"]
    assert "*.bin" not in asked["allow_patterns"]
    assert ("*.py" in asked["allow_patterns"]) == trusted


def test_a_hub_model_without_safetensors(copy, monkeypatch, tmp_path):
    (copy / "model.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mergelib.checkpoints.snapshot_download", lambda *_, **__: str(copy))
    with pytest.raises(InputError, match=r"needs \*\.safetensors, found none on the hub; convert"):
        open_checkpoint("owner/model", "base")


# Code that comes with a model ---------------------------------------------------------------------


@pytest.fixture
def own_code(copy):
    change_config(copy, model_type="newest", auto_map={"AutoConfig": "modeling.NewestConfig"})
    (copy / "modeling.py").write_text("class NewestConfig: ...")
    return copy


def test_a_models_own_code_needs_trust(own_code):
    assert refusal(own_code).endswith(
        "model_type 'newest' is not known to transformers; it needs trust_remote_code: true in the "
        "search file, which runs the model's own code"
    )
    assert open_checkpoint(str(own_code), "base", trust_remote_code=True).trust_remote_code


def test_what_transformers_knows_needs_no_trust(own_code):
    change_config(own_code, model_type="llama")
    assert not open_checkpoint(str(own_code), "base").trust_remote_code


@pytest.mark.parametrize("digest", ["fingerprint", "answering_digest"])
def test_trusted_code_decides_answers(digest, own_code, llama):
    def value(trusted):
        return getattr(Checkpoint("copy", own_code, trust_remote_code=trusted), digest)

    untrusted, trusted = value(False), value(True)
    assert untrusted != trusted
    (own_code / "modeling.py").write_text("class NewestConfig: changed = 1")
    assert value(False) == untrusted
    assert value(True) != trusted


# Several files ------------------------------------------------------------------------------------


def test_a_sharded_checkpoint_holds_the_same_tensors(sharded, llama):
    assert len(sharded.files) > 2
    assert sharded.tensor_infos == llama.base.tensor_infos
    single = dict(llama.base.tensors())
    assert all(torch.equal(tensor, single[name]) for name, tensor in sharded.tensors())


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


def test_the_fingerprint_is_that_of_names_and_contents(llama):
    """Kept results are found again by it: the formula must not change."""
    names = ["model.safetensors", "config.json", "generation_config.json"]
    names += ["tokenizer.json", "tokenizer_config.json"]
    lines = [f"{n} {sha256((llama.one.folder / n).read_bytes()).hexdigest()}\n" for n in names]
    assert llama.one.fingerprint == sha256("".join(lines).encode()).hexdigest()


def test_a_remembered_fingerprint(copy, tmp_path):
    cache = tmp_path / "runs" / "cache"
    before = set(copy.iterdir())
    first = open_checkpoint(str(copy), "base", cache=cache).fingerprint
    assert len(list((cache / "fingerprints").iterdir())) == 1
    assert open_checkpoint(str(copy), "base", cache=cache).fingerprint == first
    assert open_checkpoint(str(copy), "base").fingerprint == first
    assert set(copy.iterdir()) == before
