"""Candidates for another engine: handed over whole, and nothing stays behind."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM

from mergelib.benchmarks import engines, handing_over
from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.handing_over import HandedOver, clear
from mergelib.benchmarks.items import Item, open_benchmark
from mergelib.checkpoints import Checkpoint
from mergelib.errors import InputError
from mergelib.merging.resident import ResidentModel
from mergelib.reservations import reservations
from mergelib.search import parse_search
from mergelib.sections.objectives import Objective
from mergelib.workbench import Workbench


@pytest.fixture
def resident(data: Path) -> ResidentModel:
    return ResidentModel(Checkpoint("math", data / "zoo" / "math"), "cpu", "float32")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed vLLM, and an empty folder in the place of the memory-backed one."""
    monkeypatch.setattr(handing_over, "find_spec", lambda _: object())
    monkeypatch.setattr(handing_over, "MEMORY", tmp_path)
    return tmp_path


def _items(data: Path) -> list[Item]:
    items = []
    for name in ("zoo_de_choice", "zoo_ja"):
        path = str(data / "benchmarks" / f"{name}.yaml")
        items += open_benchmark(Objective(benchmark=path, fresh_items=2), "o", 0).pool("search")[:3]
    return items


def _open(resident: ResidentModel, batch: Any = 4) -> HandedOver:
    return HandedOver(resident, batch, "float32", "float32", trust_remote_code=False)


def _compare(raw: Any, truth: Any) -> None:
    """Texts to the letter; loglikelihoods as far as where tensors lie in memory lets them."""
    for one, other in zip(raw, truth, strict=True):
        for (answer,), (true,) in zip(one, other, strict=True):
            if isinstance(true, str):
                assert answer == true
            else:
                assert answer[0] == pytest.approx(true[0], abs=1e-4)
                assert answer[1] == true[1]


def test_the_engine_gets_the_weights_of_the_moment(
    data: Path, resident: ResidentModel, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval's back end for transformers, on the folder, in the place of that for vLLM."""
    seen = []

    def engine(pretrained: str, **settings: Any) -> HFLM:
        seen.append((Path(pretrained), settings))
        assert (Path(pretrained) / "model.safetensors").is_file()
        return HFLM(pretrained=pretrained, dtype=settings["dtype"], device="cpu", batch_size=4)

    monkeypatch.setattr(handing_over, "open_vllm", engine)
    items, answerer = _items(data), _open(resident)
    for model in ("math", "ja"):
        resident.write(Checkpoint(model, data / "zoo" / model).tensors())
        raw, spent = answerer.answer(items)
        truth, cost = Answerer(resident, 4, "lm_eval").answer(items)
        _compare(raw, truth)
        assert 0 < spent.tokens < cost.tokens  # padding is not counted
    (first, settings), (second, _) = seen
    assert first.parent == second.parent == memory
    assert settings["max_model_len"] == resident.model.config.max_position_embeddings
    assert not [*memory.iterdir()]


def test_the_folder_goes_when_the_engine_fails(
    data: Path, resident: ResidentModel, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine(**_: Any) -> None:
        raise ValueError("no\nGPU")

    monkeypatch.setattr(handing_over, "open_vllm", engine)
    with pytest.raises(RuntimeError, match="^vLLM does not start: no GPU$"):
        _open(resident).answer(_items(data))
    assert not [*memory.iterdir()]


def test_folders_of_killed_processes_are_cleared(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f"mergeflow-{gone.pid}-a", f"mergeflow-{os.getpid()}-b", "mergeflow-mine", "x-1-"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    clear(tmp_path)
    kept = {folder.name for folder in tmp_path.iterdir()}
    assert kept == {f"mergeflow-{os.getpid()}-b", "mergeflow-mine", "x-1-"}


def test_too_little_room_is_one_line(
    data: Path, resident: ResidentModel, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = handing_over.shutil.disk_usage(memory)._replace(free=1)
    monkeypatch.setattr(handing_over.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"^compute\.engine: vllm takes .* GiB in .* are free"):
        _open(resident).answer(_items(data))


def test_without_vllm_one_line_says_how_to_install_it(resident: ResidentModel) -> None:
    with pytest.raises(InputError, match=r"^compute\.engine: vllm is not installed.*\[vllm\]"):
        _open(resident)


def test_the_arguments_are_those_of_lm_evals_back_end(
    resident: ResidentModel, memory: Path
) -> None:
    """vLLM cannot be imported here, so the back end's own text is read."""

    source = Path(find_spec("lm_eval.models.vllm_causallms").origin).read_text("utf-8")
    (init,) = (
        node
        for kind in ast.walk(ast.parse(source))
        if isinstance(kind, ast.ClassDef) and kind.name == "VLLM"
        for node in kind.body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    taken = {argument.arg for argument in init.args.args}
    assert {"pretrained", *_open(resident)._settings} <= taken


def test_merges_are_written_beside_the_gpu(
    search_content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, memory: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    search_content["merge"]["export_dtype"] = "bfloat16"
    for engine, device in (("auto", "cuda"), ("vllm", "cpu")):
        search_content["compute"] = {"engine": engine}
        search = parse_search(search_content, "here")
        assert engines.device_of(search.compute) == device
        assert engines.dtype_of(search) == "bfloat16"


@pytest.mark.usefixtures("memory")
def test_the_engine_decides_an_evaluation(search_content: dict[str, Any]) -> None:
    digests, told = set(), []
    for engine in ("auto", "lm_eval", "vllm"):
        search_content["compute"] = {"engine": engine, "dtype": "float32"}
        bench = Workbench(parse_search(search_content, "here"))
        name, benchmark = next(iter(bench.benchmarks.items()))
        asked = {name: [benchmark.items[0].item_id]}
        digests.add(bench.evaluation_digest(bench.search.base, asked))
        told.append(len(reservations(bench)))
    assert len(digests) == 3
    assert told == [0, 0, 1]


@pytest.mark.parametrize(
    ("compute", "line"),
    [
        ({"engine": "vlm"}, "compute.engine: 'vlm': "),
        ({"engine": "vllm", "quantization": "int8"}, "quantization: int8 is not for engine: vllm"),
        ({"engine": "vllm", "device": "cuda"}, "device: cuda is where models are merged"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    search_content: dict[str, Any], compute: Any, line: str
) -> None:
    search_content["compute"] = compute
    with pytest.raises(InputError) as refused:
        parse_search(search_content, "here")
    assert line in str(refused.value)
    assert str(refused.value).startswith("here: compute")
    assert len(str(refused.value).splitlines()) == 1
