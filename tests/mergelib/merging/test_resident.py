import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError
from mergelib.merging.resident import ResidentModel


@pytest.fixture
def resident(llama):
    return ResidentModel(llama.base, "cpu", "float32")


@pytest.fixture
def tied(qwen2):
    return ResidentModel(qwen2.base, "cpu", "float32")


def assert_holds(resident: ResidentModel, tensors: dict[str, torch.Tensor]) -> None:
    state = resident.model.state_dict()
    for name, value in tensors.items():
        assert torch.equal(state[name], value.to(state[name].dtype)), name


def test_opens_what_the_checkpoint_holds(resident, llama):
    assert_holds(resident, dict(llama.base.tensors()))
    assert not resident.model.training
    assert resident.tokenizer("1")["input_ids"]
    infos = llama.base.tensor_infos.values()
    assert resident.parameter_count == sum(torch.Size(info.shape).numel() for info in infos)


def test_a_written_model_answers_as_one_opened_from_disk(resident, llama):
    ids = torch.tensor([[1, 5, 9, 200]])
    with torch.no_grad():
        resident.write(llama.two.tensors())
        resident.write(llama.one.tensors())
        logits = resident.model(ids).logits
        one = AutoModelForCausalLM.from_pretrained(llama.one.folder, dtype=torch.float32)
        assert torch.equal(logits, one(ids).logits)


def test_writes_in_place(resident, llama):
    places = {name: value.data_ptr() for name, value in resident.model.named_parameters()}
    resident.write(llama.one.tensors())
    assert {n: v.data_ptr() for n, v in resident.model.named_parameters()} == places
    assert_holds(resident, dict(llama.one.tensors()))


def test_a_sharded_checkpoint_is_the_same_model(sharded, resident, llama):
    resident.write(llama.one.tensors())
    resident.write(sharded.tensors())
    assert_holds(resident, dict(llama.base.tensors()))


def test_a_tied_head_follows_the_embeddings(tied, qwen2):
    embeddings = dict(qwen2.one.tensors())
    tied.write(embeddings.items())
    written = embeddings["model.embed_tokens.weight"]
    assert torch.equal(tied.model.lm_head.weight, written)
    # Some files hold the tied head too; it is the embeddings that count.
    tied.write([*embeddings.items(), ("lm_head.weight", torch.zeros_like(written))])
    assert torch.equal(tied.model.lm_head.weight, written)
    assert tied.parameter_count == sum(value.numel() for value in embeddings.values())


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_refuses_what_is_not_the_model_and_can_be_written_again(fault, resident, llama):
    tensors = dict(llama.one.tensors())
    name = "model.layers.1.mlp.up_proj.weight"
    if fault == "missing":
        del tensors[name]
        message = f"tensor {name} was not written"
    elif fault == "unknown":
        tensors["model.layers.9.mlp.up_proj.weight"] = tensors[name]
        message = "tensor model.layers.9.mlp.up_proj.weight is not in the model"
    else:
        tensors[name] = tensors[name].T.contiguous()
        message = rf"tensor {name} has shape \[32, 48\], the model's \[48, 32\]"
    with pytest.raises(MergeError, match=message):
        resident.write(tensors.items())
    resident.write(llama.two.tensors())
    assert_holds(resident, dict(llama.two.tensors()))


def test_a_single_number_is_not_spread_over_a_parameter(resident, llama):
    tensors = dict(llama.one.tensors())
    tensors["model.norm.weight"] = torch.ones(1)
    with pytest.raises(MergeError, match=r"model.norm.weight has shape \[1\]"):
        resident.write(tensors.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["resident", "tied"])
def test_a_saved_model_is_a_hugging_face_folder(kind, dtype, llama, qwen2, tmp_path, request):
    resident = request.getfixturevalue(kind)
    endpoint = {"resident": llama, "tied": qwen2}[kind].one
    rounded = {n: t.to(getattr(torch, dtype)) for n, t in endpoint.tensors()}
    resident.write(rounded.items())
    resident.save(tmp_path / "model", dtype)
    saved = Checkpoint("saved", tmp_path / "model")
    got = dict(saved.tensors())
    assert got.keys() == rounded.keys()
    assert all(torch.equal(got[name], rounded[name]) for name in rounded)
    assert saved.config["dtype"] == dtype
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == saved.config
    opened = AutoModelForCausalLM.from_pretrained(saved.folder, dtype="auto")
    assert opened.dtype == getattr(torch, dtype)
    tokenizer = AutoTokenizer.from_pretrained(saved.folder)
    assert tokenizer("1 2")["input_ids"] == resident.tokenizer("1 2")["input_ids"]
    # The model in memory goes on in its own type.
    assert resident.model.dtype == torch.float32
    assert resident.model.config.dtype == torch.float32
    assert_holds(resident, rounded)
