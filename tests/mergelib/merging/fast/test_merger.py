"""The fast backend, held to mergekit's own arithmetic."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError
from mergelib.merging.fast import compiled, device
from mergelib.merging.fast.merger import FAST_METHODS, FastMerger
from mergelib.merging.mergekit import MergekitMerger
from mergelib.merging.resident import ResidentModel
from mergelib.recipes import Recipe

WEIGHTS = (
    [0.2, 1.1],
    [{"filter": "mlp", "value": [0.9, -0.1, 0.4]}, {"value": 0.7}],
    0.35,
)
"""A gradient; a filter with a gradient below it and a negative weight in it; a number."""


def recipe(method: str, models=("one", "two"), out_dtype="bfloat16", each=None, **shared) -> Recipe:
    """A recipe with a weight of its own for each model, and further parameters for all."""
    base = "one" if method == "slerp" else "base"
    entries = [
        {
            "model": model,
            "parameters": {**({} if method == "slerp" else {"weight": w}), **(each or {})},
        }
        for model, w in zip(models, WEIGHTS, strict=False)
    ]
    config = {"merge_method": method, "models": entries, "parameters": shared}
    if method != "linear":
        config["base_model"] = base
    return Recipe({**config, "dtype": "float32", "out_dtype": out_dtype})


SPARSE = {"density": [0.3, 0.8]}
EXACT = {
    "linear": recipe("linear"),
    "linear, not normalised": recipe("linear", normalize=False),
    "slerp": recipe("slerp", t=[{"filter": "mlp", "value": [0, 0.6]}, {"value": 0.3}]),
    "slerp, at its ends": recipe("slerp", t=[0.0, 1.0]),
    "task_arithmetic": recipe("task_arithmetic", **{"lambda": 1.2}),
    "task_arithmetic, normalised": recipe("task_arithmetic", normalize=True),
    "ties": recipe("ties", each=SPARSE),
    "ties, not normalised": recipe("ties", each=SPARSE, normalize=False, int8_mask=True),
    "ties, of nothing": recipe("ties", each={"density": 0.0}),
    "ties, of everything": recipe("ties", each={"density": 1.0}, **{"lambda": 0.5}),
    "dare_ties, not rescaled": recipe("dare_ties", each=SPARSE, rescale=False),
    "dare_linear, not rescaled": recipe("dare_linear", each=SPARSE, rescale=False, normalize=True),
    "dare_linear, of nothing": recipe("dare_linear", each={"density": 0.0}),
}
"""The same bits as mergekit's."""

RESCALED = {
    "dare_ties": recipe("dare_ties", out_dtype="float32", each=SPARSE),
    "dare_linear": recipe("dare_linear", out_dtype="float32", each=SPARSE, normalize=True),
    "ties": recipe("ties", out_dtype="float32", each=SPARSE, rescale=True),
}
"""Mergekit adds up a task vector's magnitudes in float32, which loses a digit."""

FAMILIES = ["llama-bfloat16", "llama-float32", "qwen2-bfloat16", "qwen2-float32"]


def merger(models, dtype="float32", seed=0, checkpoints=None, **more) -> FastMerger:
    """A fast merger over a family, with a resident model of its own."""
    mergekit = MergekitMerger(checkpoints or models.checkpoints, seed)
    return FastMerger(mergekit, ResidentModel(models.base, "cpu", dtype), **more)


def written(fast: FastMerger, wanted: Recipe) -> dict[str, torch.Tensor]:
    """What the resident model holds after a recipe."""
    fast.write(wanted)
    return {name: p.clone() for name, p in fast._resident.model.named_parameters()}


def expected(models, wanted: Recipe, seed=0, checkpoints=None) -> dict[str, torch.Tensor]:
    """What mergekit makes of a recipe; that this is `run_merge`'s, test_mergekit.py holds."""
    return dict(MergekitMerger(checkpoints or models.checkpoints, seed).merge(wanted))


def assert_same(got: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> None:
    assert got.keys() == truth.keys()
    for name, value in truth.items():
        assert torch.equal(got[name].float(), value.float()), name


@pytest.fixture(params=["compiled", "torch"])
def fast(request, llama):
    """A merger with the kernels of a CPU, and with those of a GPU run on the CPU."""
    made = merger(llama)
    if request.param == "torch":
        made.kernels = device
    return made


def test_every_fast_method_is_held_to_mergekit_here():
    assert {wanted.method for wanted in EXACT.values()} == FAST_METHODS


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", EXACT)
def test_merges_to_the_bit_what_mergekit_does(name, family, families):
    wanted, models = EXACT[name], families[family]
    assert_same(written(merger(models), wanted), expected(models, wanted))


@pytest.mark.parametrize("out_dtype", ["float32", "float16"])
@pytest.mark.parametrize("method", sorted(FAST_METHODS))
def test_rounds_as_mergekit_does(method, out_dtype, fast, llama):
    wanted = Recipe({**EXACT[method_name(method)].config, "out_dtype": out_dtype})
    assert_same(written(fast, wanted), expected(llama, wanted))


def method_name(method: str) -> str:
    return method if method in EXACT else f"{method}, not rescaled"


@pytest.mark.parametrize("name", EXACT)
def test_the_kernels_of_a_gpu_give_the_same_bits(name, llama):
    on_gpu = merger(llama)
    on_gpu.kernels = device
    assert_same(written(on_gpu, EXACT[name]), expected(llama, EXACT[name]))


@pytest.mark.parametrize("name", EXACT)
def test_a_gpu_writes_exported_types_at_once(name, llama):
    on_gpu = merger(llama, "bfloat16")
    on_gpu.kernels = device
    truth = expected(llama, EXACT[name])
    assert {value.dtype for value in truth.values()} == {torch.bfloat16}
    assert_same(written(on_gpu, EXACT[name]), truth)


@pytest.mark.parametrize(("kernels", "calls"), [(device, [2, 2, 1]), (compiled, [1, 1, 1])])
def test_what_a_gpu_keeps_is_computed_ahead_while_it_grows(kernels, calls, llama, monkeypatch):
    made = merger(llama)
    made.kernels = kernels
    asked, writer = [], made._writer
    monkeypatch.setattr(
        made, "_writer", lambda *given: asked.append(given[1].name) or writer(*given)
    )
    found = []
    for _ in calls:
        asked.clear()
        made.write(EXACT["ties"])
        found.append(len(asked) / len(set(asked)))
    assert found == calls


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", RESCALED)
def test_rescaled_task_vectors_agree_to_a_millionth(name, family, families):
    wanted, models = RESCALED[name], families[family]
    got, truth = written(merger(models), wanted), expected(models, wanted)
    for tensor, value in truth.items():
        torch.testing.assert_close(got[tensor], value, rtol=1e-6, atol=1e-6, msg=tensor)
    base = dict(models.base.tensors())
    assert any(not torch.equal(got[name], base[name].float()) for name in got)


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "dare_ties"])
def test_three_models(method, llama):
    three = {**llama.checkpoints, "three": Checkpoint("three", llama.base.folder)}
    sparse = {} if method == "linear" else SPARSE
    wanted = recipe(method, models=("one", "two", "three"), each=sparse)
    if method == "dare_ties":
        wanted = recipe(method, models=("one", "two", "three"), each=sparse, rescale=False)
    got = written(merger(llama, checkpoints=three), wanted)
    assert_same(got, expected(llama, wanted, checkpoints=three))


def test_one_model_alone(llama):
    wanted = Recipe({**EXACT["linear"].config, "models": EXACT["linear"].config["models"][:1]})
    assert_same(written(merger(llama), wanted), expected(llama, wanted))


def convert(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype) -> Checkpoint:
    """A checkpoint stored in another type."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=dtype)
    model.save_pretrained(folder)
    return Checkpoint(checkpoint.reference, folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("method", ["linear", "slerp", "ties"])
def test_sources_of_other_and_of_several_types(method, dtype, llama, tmp_path):
    mixed = {**llama.checkpoints, "one": convert(llama.one, tmp_path / "one", dtype)}
    got = written(merger(llama, checkpoints=mixed), EXACT[method])
    assert_same(got, expected(llama, EXACT[method], checkpoints=mixed))


def test_a_resident_model_in_the_exported_type(llama):
    got = written(merger(llama, dtype="bfloat16"), EXACT["ties"])
    assert {tensor.dtype for tensor in got.values()} == {torch.bfloat16}
    assert_same(got, expected(llama, EXACT["ties"]))


def test_a_chunk_is_a_matter_of_speed_only(fast, llama, monkeypatch):
    monkeypatch.setattr(fast.kernels, "CHUNK", 100)
    monkeypatch.setattr(fast.kernels, "ONE_PASS", False)
    for name in ("ties", "slerp", "dare_ties, not rescaled"):
        assert_same(written(fast, EXACT[name]), expected(llama, EXACT[name]))


def test_threads_are_a_matter_of_speed_only(llama):
    fast = merger(llama)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        got = written(fast, EXACT["ties"])
    finally:
        torch.set_num_threads(before)
    assert_same(got, expected(llama, EXACT["ties"]))


def test_slices_are_merged_too(llama):
    """Layer 0 of one model over layer 1 of the other: ranks are of tensors, not of names."""
    config = {
        "merge_method": "ties",
        "base_model": "base",
        "slices": [
            {
                "sources": [
                    {"model": "base", "layer_range": [0, 3]},
                    {"model": model, "layer_range": [0, 3], "parameters": {"weight": 0.7}},
                ]
            }
            for model in ("one",)
        ],
        "parameters": {"density": 0.4},
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    swapped = json.loads(json.dumps(config))
    swapped["slices"] = [
        {
            "sources": [
                {"model": "base", "layer_range": [1, 2]},
                {"model": "one", "layer_range": [layer, layer + 1], "parameters": {"weight": 0.7}},
            ]
        }
        for layer in (2, 0, 1)
    ]
    fast = merger(llama)
    for wanted in (Recipe(config), Recipe(swapped)):
        assert_same(written(fast, wanted), expected(llama, wanted))


def test_other_methods_are_left_to_mergekit(llama):
    config = {**EXACT["task_arithmetic"].config, "merge_method": "breadcrumbs"}
    assert_same(written(merger(llama), Recipe(config)), expected(llama, Recipe(config)))


# The same bits whenever and wherever --------------------------------------------------------------


def test_a_recipe_gives_the_same_after_others_and_without_memory(fast, llama):
    wanted = RESCALED["dare_ties"]
    first = written(fast, wanted)
    for other in (*EXACT.values(), *RESCALED.values()):
        fast.write(other)
    torch.manual_seed(5)
    assert_same(written(fast, wanted), first)
    forgetful = merger(llama, limit=0)
    forgetful.kernels = fast.kernels
    assert_same(written(forgetful, wanted), first)
    assert forgetful.kept.size == 0
    assert_same(written(forgetful, EXACT["ties"]), written(fast, EXACT["ties"]))


def test_a_recipe_gives_the_same_bytes_in_another_process(llama, tmp_path):
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from safetensors.torch import save_file\n"
        "from mergelib.checkpoints import Checkpoint\n"
        "from mergelib.merging.fast.merger import FastMerger\n"
        "from mergelib.merging.mergekit import MergekitMerger\n"
        "from mergelib.merging.resident import ResidentModel\n"
        "from mergelib.recipes import Recipe\n"
        "models = {n: Checkpoint(n, Path(f)) for n, f in json.loads(sys.argv[1]).items()}\n"
        "resident = ResidentModel(models['base'], 'cpu', 'float32')\n"
        "fast = FastMerger(MergekitMerger(dict(reversed(models.items())), 0), resident)\n"
        "fast.write(Recipe(json.loads(sys.argv[2])))\n"
        "save_file(dict(resident.model.named_parameters()), sys.argv[3])\n"
    )
    wanted, out = RESCALED["dare_ties"], tmp_path / "merged.safetensors"
    folders = json.dumps({name: str(folder) for name, folder in llama.folders.items()})
    subprocess.run(
        [sys.executable, "-c", script, folders, json.dumps(wanted.config), str(out)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
    )
    here = written(merger(llama), wanted)
    save_file(here, tmp_path / "here.safetensors")
    assert out.read_bytes() == (tmp_path / "here.safetensors").read_bytes()


def test_another_seed_gives_other_masks(llama):
    wanted = RESCALED["dare_linear"]
    some, other = (written(merger(llama, seed=seed), wanted) for seed in (0, 1))
    assert any(not torch.equal(some[name], other[name]) for name in some)


# What is kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ties", "dare_ties, not rescaled"])
def test_four_bytes_an_element_and_endpoint_are_kept(name, llama):
    fast = merger(llama)
    fast.write(EXACT[name])
    count = sum(p.numel() for p in fast._resident.model.parameters())
    assert fast.kept.size == 4 * 2 * count
    assert fast.kept.left_out == 0
    fast.write(EXACT[name])
    assert fast.kept.size == 4 * 2 * count


def test_what_does_not_fit_is_computed_anew_and_told_once(llama, caplog):
    fast = merger(llama, limit=50_000)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert_same(written(fast, EXACT["ties"]), expected(llama, EXACT["ties"]))
    assert 0 < fast.kept.size <= 50_000
    assert fast.kept.left_out > 0
    assert len(caplog.records) == 1
    assert "compute.cache_gib" in caplog.text


# Faults -------------------------------------------------------------------------------------------


def test_weights_beyond_the_type_fail_and_name_the_first_tensor(fast):
    huge = recipe("task_arithmetic", out_dtype="float16", **{"lambda": 1e7})
    with pytest.raises(MergeError, match=r"^tensor model\.embed_tokens\.weight has values that"):
        fast.write(huge)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["linear", "slerp", "ties"])
def test_a_source_that_is_not_finite_fails(method, value, fast, llama, tmp_path):
    tensors = load_file(llama.one.folder / "model.safetensors")
    tensors["model.norm.weight"][3] = value
    (tmp_path / "config.json").write_bytes((llama.one.folder / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    damaged = {**llama.checkpoints, "one": Checkpoint("one", tmp_path)}
    made = merger(llama, checkpoints=damaged)
    made.kernels = fast.kernels
    wanted = EXACT["slerp"] if method == "slerp" else recipe(method)
    with pytest.raises(MergeError, match=r"^tensor model\.norm\.weight has values that"):
        made.write(wanted)


def test_weights_that_sum_to_zero_fail(fast):
    entries = [{"model": m, "parameters": {"weight": w}} for m, w in (("one", 1), ("two", -1))]
    with pytest.raises(MergeError, match="weights"):
        fast.write(Recipe({"merge_method": "linear", "models": entries, "dtype": "float32"}))


@pytest.mark.parametrize("stays", ["base", "one"])
@pytest.mark.parametrize("out_dtype", ["bfloat16", "float32"])
def test_a_model_in_the_place_of_the_merge_would_be_noticed(stays, out_dtype, llama, tmp_path):
    """Also where the endpoints are so near that rounding to bfloat16 hides most of it."""
    near = dict(llama.checkpoints)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in ("one", "two"):
            model = AutoModelForCausalLM.from_pretrained(llama.base.folder, dtype=torch.float32)
            for parameter in model.parameters():
                parameter.data += 1e-3 * torch.randn(parameter.shape)
            model.save_pretrained(tmp_path / name)
            near[name] = Checkpoint(name, tmp_path / name)
    fast = merger(llama, checkpoints=near)
    wanted = recipe("ties", out_dtype=out_dtype, each={"density": 0.5})
    fast.write(wanted)
    fast.check(wanted)
    fast._resident.write(
        (name, value.to(getattr(torch, out_dtype))) for name, value in near[stays].tensors()
    )
    with pytest.raises(MergeError, match="is not what mergekit makes"):
        fast.check(wanted)


def test_a_fault_of_the_kernels_would_be_noticed(fast, monkeypatch):
    wanted = RESCALED["dare_ties"]
    fast.write(wanted)
    fast.check(wanted)
    with torch.no_grad():
        fast._resident.parameter("model.norm.weight")[0] += 0.01
        fast._resident.parameter("model.layers.0.input_layernorm.weight")[0] += 0.01
    with pytest.raises(MergeError, match=r"layernorm\.weight is not what mergekit makes"):
        fast.check(wanted)
