import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from benchmarks import answering, gpu
from benchmarks.models import random_models
from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.items import open_benchmark
from mergelib.benchmarks.rows import Rows
from mergelib.checkpoints import Checkpoint
from mergelib.merging.resident import ResidentModel
from mergelib.sections.objectives import Objective

TINY = {
    "vocab_size": 4000,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.SIZES, "tiny", TINY)


def test_one_command_measures_merging_and_answering(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    given = ["--device", "cpu", "--sizes", "tiny", "--methods", "linear", "ties"]
    given += ["--parts", "merging", "answering", "memory", "--items", "2", "--repeats", "1"]
    gpu.main([*given, "--dtypes", "float32", "--json", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert [row["part"] for row in rows] == ["merging"] * 2 + ["answering"] * 2
    for row in rows[:2]:
        assert row["same_again"]
        assert row["as_mergekit"]
        assert row["copy_share"] > 0
    assert [row["items_differ"] for row in rows[2:]] == [0, 0]
    assert all(row["peak_gib"] is None for row in rows)


def test_halved_batches_are_counted(tmp_path: Path) -> None:
    _, path = answering.write_tasks(tmp_path, 4)
    models = random_models("tiny", "bfloat16", tmp_path)
    answering.write_tokenizer(Path(models.base), tmp_path, TINY["vocab_size"])
    resident = ResidentModel(Checkpoint("tiny", Path(models.base)), "cpu", "float32")
    asked = open_benchmark(Objective(benchmark=path, search_items=4), "tasks", 0).pool("search")
    free = Answerer(resident, "auto").answer(asked)[0]
    add = Rows.add

    def crowded(rows: Rows, tokens: list[int]) -> torch.Tensor:
        if len(tokens) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return add(rows, tokens)

    answerer = Answerer(resident, "auto")
    assert answerer._fast
    with patch.object(Rows, "add", crowded), gpu.halvings() as halved:
        assert answerer.answer(asked)[0] == free
    assert halved == ["Generations"] * 2  # 4, 2, 1


def test_it_needs_no_prefect() -> None:
    program = "import benchmarks.gpu, sys; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
