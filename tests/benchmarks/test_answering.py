import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import answering, candidate
from benchmarks.record import report
from mergelib.checkpoints import Checkpoint
from mergelib.merging.resident import ResidentModel


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("small")
    paths = answering.write_tasks(folder, 4)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=4000, num_attention_heads=4, **size)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    answering.write_tokenizer(folder / "model", folder, 4000)
    return folder / "model", paths


@pytest.mark.parametrize("number", [0, 1])
def test_both_ways_to_answer_give_the_same_scores(
    small_model: tuple[Path, list[str]], tmp_path: Path, number: int
) -> None:
    folder, paths = small_model
    resident = ResidentModel(Checkpoint("small", folder), "cpu", "float32")
    row = answering.measure(resident, paths[number], 4, 1, answering.gemm_rate())
    assert row["items"] == 4
    assert row["items_differ"] == 0
    assert row["kind"] == ["loglikelihood", "generate_until"][number]
    assert number == 1 or row["max_loglik_diff"] < 1e-3
    assert row["seconds_lm_eval"] > 0
    assert 0 < row["gemm_share"] < 1
    assert 0 < row["setup_ms"] < 1e3 * row["cpu_seconds"]
    out = tmp_path / "answering.json"
    report("answering", [row], out)
    assert json.loads(out.read_text())["rows"] == [row]


@pytest.mark.parametrize("method", candidate.METHODS)
def test_a_candidate_has_the_same_scores_both_ways(tmp_path: Path, method: str) -> None:
    models, tasks = candidate.prepare(tmp_path, "9M", 2)
    row = candidate.measure(method, models, tasks, 1, candidate.THEIR_BATCH)
    assert row["items"] == 4
    assert row["items_differ"] == 0
    stages = [row[f"seconds_their_{stage}"] for stage in ("merge", "load", "evaluate")]
    assert row["seconds_theirs"] == pytest.approx(sum(stages))
    assert row["ratio"] == pytest.approx(row["seconds_theirs"] / row["seconds"])
