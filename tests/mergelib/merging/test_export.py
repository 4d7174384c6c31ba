import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergelib.checkpoints import Checkpoint
from mergelib.errors import InputError, MergeError
from mergelib.merging.export import export_models
from mergelib.merging.resident import ResidentModel
from mergelib.search import parse_search
from mergelib.workbench import Workbench


def read_tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def bench(search_content, request):
    search_content["merge"]["export_dtype"] = getattr(request, "param", "bfloat16")
    return Workbench(parse_search(search_content, "here"))


def a_recipe(bench, shift=0.0):
    genome = [0.2 + shift + 0.1 * (n % 5) for n in range(bench.space.dimension)]
    return bench.space.decode(genome).to_yaml()


@pytest.mark.parametrize("bench", ["float32", "bfloat16"], indirect=True)
def test_what_is_exported_is_what_was_evaluated(bench, tmp_path):
    recipe, folder = a_recipe(bench), tmp_path / "winner"
    evaluated = {
        name: value.clone() for name, value in bench.write_model(recipe).model.state_dict().items()
    }
    bench.write_model(bench.search.base)
    export_models(bench, {"": (recipe, "# A card: 日本語\n")}, folder)

    dtype = getattr(torch, bench.search.merge.export_dtype)
    saved = dict(Checkpoint("winner", folder).tensors())
    assert saved.keys() == evaluated.keys()
    for name, value in saved.items():
        assert value.dtype == dtype
        assert torch.equal(value.float(), evaluated[name]), name

    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("12 + 30 =", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(opened(ids).logits, bench.write_model(recipe).model(ids).logits)

    assert (folder / "README.md").read_text(encoding="utf-8") == "# A card: 日本語\n"
    assert (folder / "mergekit_config.yml").read_text(encoding="utf-8") == recipe
    run_merge(
        MergeConfiguration.model_validate(yaml.safe_load(recipe)),
        str(tmp_path / "by-mergekit"),
        MergeOptions(quiet=True),
    )
    for name, value in Checkpoint("disk", tmp_path / "by-mergekit").tensors():
        assert torch.equal(saved[name], value), name


def test_a_second_export_replaces_the_folder_as_a_whole(bench, tmp_path):
    folder = tmp_path / "winner"
    folder.mkdir()
    (folder / "left-over.txt").write_text("old")
    export_models(bench, {"": (a_recipe(bench), "card")}, folder)
    first = read_tree(folder)
    export_models(bench, {"": (a_recipe(bench, shift=0.1), "card")}, folder)
    second = read_tree(folder)
    assert first.keys() == second.keys()
    assert {str(name) for name in first if first[name] != second[name]} == {
        "model.safetensors",
        "mergekit_config.yml",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["winner"]


def test_a_failing_export_leaves_the_old_folder(bench, tmp_path):
    folder = tmp_path / "winner"
    export_models(bench, {"": (a_recipe(bench), "card")}, folder)
    before = read_tree(folder)
    # A lone surrogate cannot be written as UTF-8: the fault comes after the weights are saved.
    with pytest.raises(UnicodeEncodeError):
        export_models(bench, {"": (a_recipe(bench, shift=0.1), "\ud800")}, folder)
    with pytest.raises(MergeError, match="not a model of this search"):
        export_models(
            bench, {"": (a_recipe(bench).replace("/zoo/ja", "/zoo/nowhere"), "card")}, folder
        )
    assert read_tree(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["winner"]


@pytest.mark.parametrize("fault", ["differs", "lacks"])
def test_weights_that_were_not_evaluated_are_not_published(fault, bench, tmp_path, monkeypatch):
    """A fault of the library that saves, which cannot be caused otherwise."""
    save = ResidentModel.save

    def save_wrongly(self, folder, dtype):
        save(self, folder, dtype)
        if fault == "differs":
            with torch.no_grad():
                self.model.get_parameter("model.norm.weight").add_(1)
        else:
            extra = torch.nn.Parameter(torch.ones(1))
            self.model.register_parameter("unsaved", extra)

    monkeypatch.setattr(ResidentModel, "save", save_wrongly)
    message = {"differs": "model.norm.weight differs", "lacks": "unsaved was evaluated and not"}
    with pytest.raises(MergeError, match=message[fault]):
        export_models(bench, {"": (a_recipe(bench), "card")}, tmp_path / "winner")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_transformers_would_complete_is_not_published(bench, tmp_path, monkeypatch):
    """A fault of the library that saves, which cannot be caused otherwise."""
    save = ResidentModel.save

    def save_for_another_model(self, folder, dtype):
        save(self, folder, dtype)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "attention_bias": True}))

    monkeypatch.setattr(ResidentModel, "save", save_for_another_model)
    with pytest.raises(MergeError, match=r"lacks model\.layers\.0\.self_attn\.k_proj\.bias, which"):
        export_models(bench, {"": (a_recipe(bench), "card")}, tmp_path / "winner")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The operating system's own fault: writing beyond so many bytes fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing_and_the_export_can_be_done_again(bench, tmp_path):
    models = {name: (a_recipe(bench), "card") for name in ("first", "second")}
    folder = tmp_path / "front"
    message = f"^{folder}: File too large: about 3.8 MB are needed and .* are free; make room, or"
    with pytest.raises(InputError, match=message), no_file_above(500_000):
        export_models(bench, models, folder)
    assert list(tmp_path.iterdir()) == []
    export_models(bench, models, folder)
    before = read_tree(folder)
    with pytest.raises(InputError, match=message), no_file_above(500_000):
        export_models(bench, models, folder)
    assert read_tree(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["front"]


def test_a_disk_without_room_is_refused_before_anything_is_merged(bench, tmp_path, monkeypatch):
    """How much is free here cannot be changed."""
    free = shutil.disk_usage(tmp_path)._replace(free=1_800_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    monkeypatch.setattr(bench, "write_model", None)
    with pytest.raises(InputError, match="about 1.9 MB are needed and 1.8 MB are free"):
        export_models(bench, {"": (a_recipe(bench), "card")}, tmp_path / "new" / "winner")
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_its_own_code_is_exported_with_it(search_content, tmp_path):
    code = (
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class MyConfig(LlamaConfig):\n    model_type = 'my_llama'\n"
        "class MyLlama(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )

    def with_code(reference):
        folder = tmp_path / reference.rsplit("/", 1)[1]
        shutil.copytree(reference, folder)
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "my_llama", "architectures": ["MyLlama"]}
        classes = {"AutoConfig": "MyConfig", "AutoModelForCausalLM": "MyLlama"}
        config["auto_map"] = {auto: f"modeling_mine.{name}" for auto, name in classes.items()}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "modeling_mine.py").write_text(code)
        return str(folder)

    search_content["base"] = with_code(search_content["base"])
    search_content["endpoints"] = [with_code(each) for each in search_content["endpoints"]]
    search_content["trust_remote_code"] = True
    bench = Workbench(parse_search(search_content, "here"))
    export_models(bench, {"": (a_recipe(bench), "card")}, tmp_path / "winner")
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "winner", trust_remote_code=True)
    assert type(opened).__name__ == "MyLlama"
