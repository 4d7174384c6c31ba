import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from mergelib.checkpoints import Checkpoint
from mergelib.compatibility import check_compatible, check_distinct
from mergelib.errors import InputError
from mergelib.vocabulary import tokens

UP = "model.layers.1.mlp.up_proj.weight"
HEAD = "lm_head.weight"
EMBEDDINGS = "model.embed_tokens.weight"
REMEDY = (
    "give one of them the other's vocabulary first, by `mergeflow merge` with mergekit's "
    "`tokenizer: {source: ...}`"
)


@pytest.fixture
def copy(llama, tmp_path):
    """A copy of a Llama endpoint, to be changed at will."""
    return shutil.copytree(llama.one.folder, tmp_path / "copy")


def change_config(folder, **changes) -> None:
    """Change keys by name; None takes one away."""
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def change_tensors(folder, **changes) -> None:
    """Replace tensors by name; None takes one away."""
    tensors = load_file(folder / "model.safetensors") | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def change_tokenizer(folder, change) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))


def notes(base, folder) -> list[str]:
    found = check_compatible([("base", base), ("endpoints.0", Checkpoint("copy", folder))])
    assert all("\n" not in note for note in found)
    return found


def difference(family, folder) -> str:
    with pytest.raises(InputError) as caught:
        notes(family.base, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_family_fits_together(llama, qwen2):
    for family in (llama, qwen2):
        assert check_compatible(list(family.checkpoints.items())) == []


def test_one_model_fits_itself(llama):
    assert check_compatible([("base", llama.base)]) == []


def test_a_sharded_model_fits_a_single_file(llama, sharded):
    assert check_compatible([("base", llama.base), ("endpoints.0", sharded)]) == []


# Configuration ------------------------------------------------------------------------------------


def test_another_architecture(llama, qwen2):
    message = difference(llama, qwen2.one.folder)
    assert message == (
        "endpoints.0: copy: architectures is ['Qwen2ForCausalLM'], but ['LlamaForCausalLM'] in "
        "base; models to merge must agree"
    )


@pytest.mark.parametrize(
    ("key", "ours"), [("num_hidden_layers", 3), ("hidden_size", 32), ("vocab_size", 589)]
)
def test_another_size(key, ours, llama, copy):
    change_config(copy, **{key: 7})
    remedy = REMEDY if key == "vocab_size" else "models to merge must agree"
    assert difference(llama, copy) == f"endpoints.0: copy: {key} is 7, but {ours} in base; {remedy}"


def test_old_and_new_names_of_the_same_rotation(llama, copy):
    change_config(copy, rope_parameters=None, rope_theta=10000, rope_scaling=None, head_dim=None)
    assert "rope_parameters" not in Checkpoint("copy", copy).config
    assert notes(llama.base, copy) == []


def test_old_and_new_names_of_scaled_rotation(llama, copy, tmp_path):
    base = shutil.copytree(llama.base.folder, tmp_path / "base")
    rope = {"rope_type": "linear", "factor": 2.0}
    change_config(base, rope_parameters=rope | {"rope_theta": 5000.0})
    change_config(
        copy,
        rope_parameters=None,
        rope_theta=5000.0,
        rope_scaling={"type": "linear", "factor": 2.0},
    )
    assert notes(Checkpoint("base", base), copy) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 10000, "rope_scaling": {"type": "linear", "factor": 2.0}},
    ],
)
def test_another_rotation(changes, llama, copy):
    change_config(copy, rope_parameters=None, **changes)
    assert "rope_parameters is " in difference(llama, copy)


def test_a_model_that_transformers_does_not_know_is_compared_as_written(llama, copy, tmp_path):
    base = shutil.copytree(llama.base.folder, tmp_path / "base")
    for folder in (base, copy):
        change_config(folder, model_type="newest")
    assert notes(Checkpoint("base", base), copy) == []
    change_config(copy, rope_theta=7)
    with pytest.raises(InputError, match="rope_theta is 7, but None in base"):
        notes(Checkpoint("base", base), copy)


# Tensors ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.float32, "F32"), (torch.float16, "F16"), (torch.float64, "F64")],
)
def test_another_type_is_told(dtype, name, llama, copy):
    tensors = load_file(copy / "model.safetensors")
    change_tensors(copy, **{name: tensor.to(dtype) for name, tensor in tensors.items()})
    assert notes(llama.base, copy) == [
        f"endpoints.0: copy: is stored in {name}, but base in BF16; they are merged in float32 "
        "arithmetic"
    ]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.uint8, "U8")],
)
def test_a_quantised_tensor(dtype, name, llama, copy):
    change_tensors(copy, **{UP: torch.zeros(48, 32).to(dtype), f"{UP}_scale": torch.ones(1)})
    assert difference(llama, copy) == (
        f"endpoints.0: copy: tensor {UP} is stored in {name}, but BF16 in base; quantised "
        "checkpoints cannot be merged: name the model that it was quantised from"
    )


def test_a_quantised_base_model(llama, copy):
    change_tensors(copy, **{UP: torch.zeros(48, 32, dtype=torch.int8)})
    with pytest.raises(InputError, match=r"^base: copy: .* in I8, but BF16 in endpoints\.0; quant"):
        check_compatible([("base", Checkpoint("copy", copy)), ("endpoints.0", llama.one)])


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        ({"model.layers.0.mlp.up_proj.qweight": torch.zeros(4, 48, dtype=torch.int32)}, {}),
        (
            {"model.layers.0.mlp.up_blocks": torch.zeros(4, 48, dtype=torch.uint8)},
            {"quantization_config": {"quant_method": "mxfp4"}},
        ),
    ],
)
def test_all_of_them_quantised(changes, config, copy):
    change_tensors(copy, **changes)
    change_config(copy, **config)
    checkpoint = Checkpoint("copy", copy)
    with pytest.raises(InputError, match=r"^base: .*quantised checkpoints cannot be merged"):
        check_compatible([("base", checkpoint), ("endpoints.0", checkpoint)])


def test_masks_and_positions_are_no_weights(copy):
    mask, positions = torch.ones(1, 1, 4, 4, dtype=torch.uint8), torch.arange(4)[None]
    change_tensors(copy, **{"attn.bias": mask, "position_ids": positions})
    checkpoint = Checkpoint("copy", copy)
    assert check_compatible([("base", checkpoint), ("endpoints.0", checkpoint)]) == []


# The head -----------------------------------------------------------------------------------------


def test_a_tied_and_an_untied_head(llama, copy):
    change_config(copy, tie_word_embeddings=True)
    change_tensors(copy, **{HEAD: None})
    message = difference(llama, copy)
    assert message.startswith(
        f"endpoints.0: copy: the embeddings are tied in endpoints.0 (it stores no {HEAD}) and "
        "untied in base (it stores one); store a copy of the embeddings as"
    )


def test_a_stored_copy_of_the_embeddings(qwen2, tmp_path):
    folder = shutil.copytree(qwen2.one.folder, tmp_path / "copy")
    embeddings = load_file(folder / "model.safetensors")[EMBEDDINGS]
    change_tensors(folder, **{HEAD: embeddings.clone()})
    message = difference(qwen2, folder)
    assert "untied in endpoints.0 (it stores one); the stored one equals the embeddings" in message


def test_a_head_that_only_one_configuration_ties(llama, copy, tmp_path):
    change_config(copy, tie_word_embeddings=True)
    message = difference(llama, copy)
    assert "tie_word_embeddings is True, but False in base, and both store a" in message
    base = shutil.copytree(llama.base.folder, tmp_path / "base")
    for folder in (base, copy):
        tensors = load_file(folder / "model.safetensors")
        change_tensors(folder, **{HEAD: tensors[EMBEDDINGS].clone()})
    assert notes(Checkpoint("base", base), copy) == []


# Tokenizers ---------------------------------------------------------------------------------------


def test_the_tokens_are_those_that_the_library_reads(llama, tmp_path):
    library = Tokenizer.from_file(str(llama.base.folder / "tokenizer.json"))
    assert tokens(llama.base, "base") == library.get_vocab(with_added_tokens=True)
    assert AutoTokenizer.from_pretrained(llama.base.folder).get_vocab() == library.get_vocab()
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], unk_id=0))
    unigram.add_special_tokens(["<s>", "a"])
    unigram.save(str(tmp_path / "tokenizer.json"))
    found = tokens(Checkpoint("unigram", tmp_path), "base")
    assert found == unigram.get_vocab(with_added_tokens=True)


def test_other_bytes_of_the_same_tokens_fit(llama, copy):
    change_tokenizer(copy, lambda content: content.update(truncation=None))
    text = (copy / "tokenizer.json").read_text()
    assert text != (llama.base.folder / "tokenizer.json").read_text()
    assert notes(llama.base, copy) == []


def test_two_tokens_that_changed_places(llama, copy):
    def swap(content):
        vocabulary = content["model"]["vocab"]
        one, two = sorted(vocabulary, key=vocabulary.get)[100:102]
        vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]

    change_tokenizer(copy, swap)
    message = difference(llama, copy)
    assert message.startswith("endpoints.0: copy: token ")
    assert " has id 101, but has id 100 in base (of 589 and 589 tokens); " in message
    assert REMEDY in message
    assert message.endswith("copy the tokenizer files of the one over the other's")


def test_a_token_more(llama, copy):
    added = {"id": 589, "content": "<new>", "special": True, "normalized": False}
    change_tokenizer(copy, lambda content: content["added_tokens"].append(added))
    assert (
        "token '<new>' has id 589, but there is no such token in base (of 590 and 589 tokens)"
        in difference(llama, copy)
    )


def test_a_token_that_only_the_settings_add(llama, copy):
    file = copy / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["added_tokens_decoder"] = {"589": {"content": "<new>", "special": True}}
    file.write_text(json.dumps(settings))
    assert "token '<new>' has id 589, but there is no such token" in difference(llama, copy)


def test_no_tokenizer_is_told(llama, copy):
    for file in copy.glob("tokenizer*"):
        file.unlink()
    assert notes(llama.base, copy) == [
        "endpoints.0: copy: has no tokenizer; its tokens are taken to be the other models'"
    ]


def test_a_tokenizer_of_the_slow_kind(llama, copy):
    """Without a tokenizer.json, transformers reads what there is."""
    content = json.loads((copy / "tokenizer.json").read_text())["model"]
    (copy / "tokenizer.json").unlink()
    vocabulary = content["vocab"] if isinstance(content["vocab"], dict) else {}
    (copy / "vocab.json").write_text(json.dumps(vocabulary | {"<odd>": len(vocabulary)}))
    (copy / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "Qwen2Tokenizer", "unk_token": None}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "token " in difference(llama, copy)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"model": {"vocab": 3}}', '{"model": {}}'])
def test_a_damaged_tokenizer(content, llama, copy):
    (copy / "tokenizer.json").write_text(content)
    message = difference(llama, copy)
    assert message.startswith("endpoints.0: copy: the tokenizer cannot be opened: ")
    assert message.endswith("; download it again")


@pytest.mark.parametrize(
    ("name", "kind"), [("vocab.json", "Qwen2Tokenizer"), ("vocab.txt", "BertTokenizer")]
)
def test_a_damaged_tokenizer_of_the_slow_kind(name, kind, llama, copy):
    (copy / "tokenizer.json").unlink()
    (copy / name).write_bytes(b"{\xff")
    (copy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    assert "the tokenizer cannot be opened: " in difference(llama, copy)


def test_a_folder_under_two_names_is_refused(llama, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(llama.one.folder)
    named = [("base", llama.base), ("endpoints.0", llama.one)]
    check_distinct(named)
    with pytest.raises(InputError, match=r"endpoints\.1: .* is the folder of .* \(endpoints\.0\)"):
        check_distinct([*named, ("endpoints.1", Checkpoint(str(link), link))])
