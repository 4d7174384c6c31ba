import json
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from benchmarks.merging import PARAMETERS, Aside, measure, timed
from benchmarks.models import SIZES, Models, random_models, random_tokenizer
from benchmarks.rates import bandwidth
from benchmarks.record import report
from mergelib.merging.fast.merger import FAST_METHODS


@pytest.fixture(scope="module")
def copied() -> float:
    return bandwidth()


@pytest.mark.parametrize("method", [*PARAMETERS, "breadcrumbs"])
def test_every_way_to_merge_gives_the_same_weights(
    data: Path, tmp_path: Path, method: str, copied: float
) -> None:
    base, *endpoints = (str(data / "zoo" / name) for name in ("base", "math", "ja"))
    row = measure(method, Models(base, endpoints), 1, copied)
    # A rescaled task vector may round to the neighbouring bfloat16.
    assert row["max_diff"] <= (2**-8 if method.startswith("dare") else 0)
    # A candidate has a tokenizer, too, which is copied and loaded.
    assert row["seconds_disk"] > row["seconds_disk_weights"] > 0
    assert row["ratio_cpu_candidate"] > row["ratio_cpu"] > 0
    assert (row["seconds_fast"] is not None) == (method in FAST_METHODS)
    out = tmp_path / "merging.json"
    report("merging", [row], out)
    written = json.loads(out.read_text())
    assert set(written) == {"benchmark", "machine", "versions", "rows"}
    assert written["rows"] == [row]


def test_the_fast_methods_are_measured() -> None:
    assert set(PARAMETERS) == FAST_METHODS


def test_random_models_have_a_tokenizer_of_their_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"vocab_size": 400, "hidden_size": 8, "intermediate_size": 8}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 1}
    monkeypatch.setitem(SIZES, "tiny", tiny | layers)
    models = random_models("tiny", "bfloat16", tmp_path)
    for folder in (models.base, *models.endpoints):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert len(tokenizer) == 400
        text = "merged, ✓"
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("size", sorted({size["vocab_size"] for size in SIZES.values()}))
def test_a_tokenizer_has_as_many_tokens_as_asked_for(size: int) -> None:
    assert len(random_tokenizer(size)) == size


def test_a_part_of_the_work_is_told_apart() -> None:
    aside = Aside()
    part = aside.of(time.sleep)
    times = timed(lambda: (part(0.05), time.sleep(0.01)), 3, aside)
    assert 0.01 <= times.rest_wall < 0.05 <= times.wall - times.rest_wall
    assert times.rest_cpu <= times.cpu
