import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mergekit.common import ModelReference
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mergelib.adapters import short_name, split_reference
from mergelib.checkpoints import Checkpoint, open_checkpoint
from mergelib.compatibility import check_compatible
from mergelib.errors import InputError

PREFIX = "base_model.model."
QUERY = f"{PREFIX}model.layers.1.self_attn.q_proj"


def save_adapter(model: Path, folder: Path, **settings) -> Path:
    """An adapter as if it had been trained: both its factors are random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        plain = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
        config = LoraConfig(
            **{"r": 4, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"} | settings
        )
        adapted = get_peft_model(plain, config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    parameter.add_(torch.randn(parameter.shape) * 0.1)
        adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapter(llama, tmp_path_factory):
    return save_adapter(llama.base.folder, tmp_path_factory.mktemp("adapters") / "lora")


@pytest.fixture
def copy(adapter, tmp_path):
    """A copy of the adapter, to be damaged at will."""
    return shutil.copytree(adapter, tmp_path / "copy")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "runs" / "cache"


def change_tensors(folder, **changes) -> None:
    """Replace tensors by name; None takes one away."""
    tensors = load_file(folder / "adapter_model.safetensors") | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def change_config(folder, **changes) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(model, adapter, **options) -> str:
    reference = f"{model.folder}+{adapter}"
    with pytest.raises(InputError) as caught:
        open_checkpoint(reference, "endpoints.0", **options)
    message = str(caught.value)
    assert message.startswith("endpoints.0: ")
    assert "\n" not in message
    return message


def mergekits(reference: str, folder: Path) -> dict[str, torch.Tensor]:
    merged = ModelReference.parse(reference).merged(cache_dir=str(folder))
    return dict(Checkpoint("mergekit", Path(merged.model.path)).tensors())


# References ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("a", None),
        ("a+b", ("a", "b")),
        ("owner/model@v1+owner/adapter@v2", ("owner/model@v1", "owner/adapter@v2")),
        ("a+b+c", ("a+b", "c")),
        ("+a", None),
        ("a+", None),
    ],
)
def test_a_reference_is_split_at_its_last_plus(reference, parts):
    assert split_reference(reference) == parts


def test_a_folder_may_have_a_plus_in_its_name(llama, tmp_path):
    folder = shutil.copytree(llama.base.folder, tmp_path / "a+b")
    assert split_reference(str(folder)) is None
    checkpoint = open_checkpoint(str(folder), "base")
    assert checkpoint.folder == folder
    assert checkpoint.name == "a+b"


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("zoo/base/", "base"),
        ("zoo/base+adapters/ja/", "base+ja"),
        ("owner/model@v1+x/one+x/two", "model@v1+one+two"),
    ],
)
def test_a_short_name(reference, name):
    assert short_name(reference) == name


# Merging ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": "all-linear", "r": 2, "lora_alpha": 16},
        {"use_rslora": True},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head", "v_proj"]},
        {"target_modules": ["lm_head", "embed_tokens"], "use_dora": True},
        {"trainable_token_indices": [3, 5]},
    ],
    ids=lambda settings: " ".join(settings) or "plain",
)
def test_equals_mergekits_to_the_bit(settings, llama, cache, tmp_path):
    folder = save_adapter(llama.base.folder, tmp_path / "lora", **settings)
    reference = f"{llama.base.folder}+{folder}"
    tensors = dict(open_checkpoint(reference, "endpoints.0", cache=cache).tensors())
    expected = mergekits(reference, tmp_path / "mergekit")
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name
    base = dict(llama.base.tensors())
    assert any(not torch.equal(tensor, base[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("kind", ["tied", "sharded"])
def test_other_kinds_of_models(kind, qwen2, sharded, cache, tmp_path):
    model = {"tied": qwen2.base, "sharded": sharded}[kind]
    reference = f"{model.folder}+{save_adapter(model.folder, tmp_path / 'lora')}"
    merged = open_checkpoint(reference, "endpoints.0", cache=cache)
    tensors, expected = dict(merged.tensors()), mergekits(reference, tmp_path / "mergekit")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    assert check_compatible([("base", model), ("endpoints.0", merged)]) == []


def test_a_merged_adapter_is_a_checkpoint_like_others(llama, adapter, cache):
    reference = f"{llama.base.folder}+{adapter}"
    random_numbers = torch.get_rng_state()
    merged = open_checkpoint(reference, "endpoints.0", cache=cache)
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert merged.reference == reference
    assert merged.name == "base+lora"
    assert merged.folder.parent == cache / "adapters"
    assert {file.name for file in merged.folder.iterdir()} == {
        file.name for file in llama.base.folder.iterdir()
    }
    assert merged.answering_digest == llama.base.answering_digest
    assert merged.fingerprint != llama.base.fingerprint
    assert check_compatible([("base", llama.base), ("endpoints.0", merged)]) == []


def test_it_is_merged_once(llama, adapter, cache, tmp_path):
    def folder(model, lora) -> Path:
        return open_checkpoint(f"{model}+{lora}", "base", cache=cache).folder

    first = folder(llama.base.folder, adapter)
    written = (first / "model.safetensors").stat()
    assert folder(llama.base.folder, adapter) == first
    # It is the contents that count, not the places.
    moved = shutil.copytree(llama.base.folder, tmp_path / "moved")
    assert folder(moved, shutil.copytree(adapter, tmp_path / "lora")) == first
    assert (first / "model.safetensors").stat() == written
    change_config(tmp_path / "lora", lora_alpha=32)
    assert folder(moved, tmp_path / "lora") != first
    assert folder(llama.one.folder, adapter) != first


def test_an_adapter_upon_an_adapter(llama, adapter, cache, tmp_path):
    other = save_adapter(llama.base.folder, tmp_path / "other", target_modules=["v_proj"])
    once = open_checkpoint(f"{llama.base.folder}+{adapter}", "base", cache=cache)
    twice = open_checkpoint(f"{llama.base.folder}+{adapter}+{other}", "base", cache=cache)
    by_hand = open_checkpoint(f"{once.folder}+{other}", "base", cache=cache)
    assert twice.folder == by_hand.folder != once.folder
    assert twice.name == "base+lora+other"


def test_without_a_cache_nothing_stays(llama, adapter):
    script = (
        "import sys; from mergelib.checkpoints import open_checkpoint\n"
        "one, two = (open_checkpoint(sys.argv[1], 'base') for _ in range(2))\n"
        "assert one.folder == two.folder and len(one.fingerprint) == 64\n"
        "sys.stdout.write(str(one.folder))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"{llama.base.folder}+{adapter}"],
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(done.stdout)
    assert folder.is_absolute()
    assert not folder.parent.exists()


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(llama, adapter, cache):
    message = f"^{cache / 'adapters'}.*: File too large: about .* make room, or write to another"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match=message):
            open_checkpoint(f"{llama.base.folder}+{adapter}", "base", cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (cache / "adapters").exists()


def test_parts_from_the_hub(llama, adapter, cache, monkeypatch, tmp_path):
    asked = []

    def download(repository, revision, allow_patterns):
        asked.append((repository, revision, "adapter_model.safetensors" in allow_patterns))
        return str(adapter if repository == "owner/lora" else llama.base.folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mergelib.checkpoints.snapshot_download", download)
    merged = open_checkpoint("owner/model@v1+owner/lora@v2", "base", cache=cache)
    assert asked == [("owner/model", "v1", False), ("owner/lora", "v2", True)]
    local = open_checkpoint(f"{llama.base.folder}+{adapter}", "base", cache=cache)
    assert merged.folder == local.folder
    assert merged.reference == "owner/model@v1+owner/lora@v2"


def test_generation_settings_at_odds_are_the_models_affair(llama, adapter, cache, tmp_path):
    folder = shutil.copytree(llama.base.folder, tmp_path / "model")
    settings = '{"do_sample": false, "temperature": 0.7, "top_p": 0.9}'
    (folder / "generation_config.json").write_text(settings)
    merged = open_checkpoint(f"{folder}+{adapter}", "base", cache=cache)
    assert (merged.folder / "generation_config.json").read_text() == settings


def test_trusted_code_comes_along(llama, adapter, cache, tmp_path):
    folder = shutil.copytree(llama.base.folder, tmp_path / "model")
    (folder / "modeling.py").write_text("changed = 1")
    reference = f"{folder}+{adapter}"
    merged = open_checkpoint(reference, "base", cache=cache, trust_remote_code=True)
    assert (merged.folder / "modeling.py").read_text() == "changed = 1"
    assert merged.trust_remote_code
    untrusted = open_checkpoint(reference, "base", cache=cache)
    assert not (untrusted.folder / "modeling.py").exists()


# Faults -------------------------------------------------------------------------------------------


def test_a_part_that_is_not_there(llama, adapter, tmp_path):
    message = refusal(llama.base, tmp_path / "nowhere")
    assert message.endswith("/nowhere': no such folder, and a hub id is owner/name")
    assert "no such folder" in refusal(Checkpoint("model", tmp_path / "nowhere"), adapter)


def test_a_model_in_place_of_an_adapter(llama):
    assert "has no adapter_config.json; it is no adapter" in refusal(llama.base, llama.one.folder)


def test_a_pickled_adapter(llama, copy):
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    message = refusal(llama.base, copy)
    assert "only adapter_model.bin, which can run code when loaded; " in message
    assert message.endswith("open it with peft and save it with model.save_pretrained(folder)")


@pytest.mark.parametrize("content", ["{", "[]", "{}", "3"])
def test_a_damaged_configuration(content, llama, copy):
    (copy / "adapter_config.json").write_text(content)
    assert "the adapter is damaged: " in refusal(llama.base, copy)


def test_an_adapter_cut_short(llama, copy):
    file = copy / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    assert "the adapter is damaged: " in refusal(llama.base, copy)


def test_another_kind_of_adapter(llama, copy):
    change_config(copy, peft_type="IA3")
    assert "peft_type is 'IA3', and only LORA can be merged" in refusal(llama.base, copy)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.embed_tokens.weight", (600, 32)),
        ("lm_head.weight", (600, 32)),
        ("model.embed_tokens.lora_embedding_A", (4, 600)),
        ("lm_head.lora_B.weight", (600, 4)),
    ],
)
def test_another_vocabulary(name, shape, llama, copy):
    change_tensors(copy, **{PREFIX + name: torch.zeros(shape)})
    expected = "the adapter changes the vocabulary from 589 to 600 tokens"
    assert expected in refusal(llama.base, copy)


@pytest.mark.parametrize(
    "settings", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["embed_tokens"]}]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tied_head(settings, qwen2, tmp_path):
    folder = save_adapter(qwen2.base.folder, tmp_path / "lora", **settings)
    assert "the model's head is tied to its embeddings" in refusal(qwen2.base, folder)
    # Some tied models store their head all the same.
    model = shutil.copytree(qwen2.base.folder, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    stored = Checkpoint("model", model)
    assert "the model's head is tied to its embeddings" in refusal(stored, folder)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: change_tensors(folder, **{f"{QUERY}.lora_A.weight": None}),
        lambda folder: change_tensors(
            folder, **{f"{QUERY.replace('1', '7')}.lora_A.weight": torch.ones(4, 32)}
        ),
        lambda folder: change_tensors(folder, **{f"{QUERY}.lora_A.weight": torch.ones(4, 16)}),
        lambda folder: change_config(folder, target_modules=["nothing"]),
        lambda folder: change_config(folder, r="many"),
        lambda folder: change_config(folder, lora_alpha=None),
        lambda folder: change_config(folder, layer_replication=[[0, 3], [1, 3]]),
    ],
    ids=["missing", "unknown", "shape", "no target", "rank", "alpha", "more layers"],
)
def test_an_adapter_that_does_not_fit(damage, llama, copy, cache):
    damage(copy)
    message = refusal(llama.base, copy, cache=cache)
    assert "the adapter does not fit the model: " in message
    assert message.endswith("name the model that it was trained on")
    assert not (cache / "adapters").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_of_another_model(qwen2, adapter, cache):
    assert "the adapter does not fit the model: " in refusal(qwen2.base, adapter, cache=cache)
