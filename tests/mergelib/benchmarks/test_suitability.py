"""Prompts longer than the context, and tokenizers without a pad token: named, and nothing lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.items import open_benchmark
from mergelib.benchmarks.suitability import padding_tokenizer
from mergelib.errors import InputError
from mergelib.merging.resident import ResidentModel
from mergelib.search import parse_search
from mergelib.sections.objectives import Objective
from mergelib.workbench import Workbench


@pytest.mark.parametrize("kind", ["written", "weighed"])
def test_items_that_are_longer_than_the_context(
    open_model: Callable[..., ResidentModel], tmp_path: Path, kind: str
) -> None:
    # The model reads 400 tokens; "red " and " red" are more bytes than tokens.
    words = [1, 90, 300, 390, 399, 400, 401, 600]
    rows = [{"q": "red" + " red" * (n - 1), "a": "red", "b": "blue", "g": 0} for n in words]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file: dict[str, Any] = {"file": str(path), "question": "q", "prompt": "{{question}}"}
    file |= (
        {"answer": "a", "max_tokens": 10}
        if kind == "written"
        else {"answer": "g", "choices": ["a", "b"]}
    )
    benchmark = open_benchmark(Objective.model_validate({"benchmark": file}), "objectives.0", 0)
    resident = open_model("qwen2")
    answerer = Answerer(resident, "auto")
    encoded = {
        item.item_id: max(
            len(
                resident.tokenizer(i.args[0] + ("" if kind == "written" else i.args[1]))[
                    "input_ids"
                ]
            )
            for i in item.instances
        )
        for item in benchmark.items
    }
    room = 390 if kind == "written" else 401
    assert {i.item_id for i in answerer.cut(benchmark.items)} == {
        name for name, tokens in encoded.items() if tokens > room
    }
    raw, _ = answerer.answer(list(benchmark.items))
    assert all(not hasattr(answer, "reason") for of_one in raw for (answer,) in of_one)


def _without(data: Path, folder: Path, *tokens: str) -> dict[str, str]:
    """Copies of the zoo's models whose tokenizers lack special tokens."""
    places = {}
    for name in ("base", "math", "ja"):
        places[name] = str(shutil.copytree(data / "zoo" / name, folder / name))
        settings = folder / name / "tokenizer_config.json"
        content = json.loads(settings.read_text(encoding="utf-8"))
        for token in tokens:
            content.pop(token, None)
        settings.write_text(json.dumps(content), encoding="utf-8")
    return places


@pytest.mark.parametrize(
    ("missing", "stand_in"),
    [(("pad_token",), "</s>"), (("pad_token", "eos_token"), "<s>")],
)
def test_a_tokenizer_without_a_pad_token_stays_without_one(
    data: Path,
    tmp_path: Path,
    search_content: dict[str, Any],
    missing: tuple[str, ...],
    stand_in: str,
) -> None:
    scores = []
    for places in (
        {name: str(data / "zoo" / name) for name in ("base", "math", "ja")},
        _without(data, tmp_path, *missing),
    ):
        search_content["base"] = places["base"]
        search_content["endpoints"] = [places["math"], places["ja"]]
        bench = Workbench(parse_search(search_content, "here"))
        notes = bench.rehearse()
        ids = [item.item_id for item in bench.benchmarks["zoo_ja"].pool("search")]
        evaluation = bench.evaluate(places["math"], {"zoo_ja": ids})
        scores.append([response[0] for response in evaluation["responses"]["zoo_ja"]])
    assert scores[0] == scores[1]
    assert notes == [
        f"the tokenizer has no pad token; {stand_in!r} stands in while models answer, and merged "
        "models have none either"
    ]
    out = tmp_path / "out"
    bench.write_model(places["math"]).save(out, "float32")
    assert "pad_token" not in json.loads((out / "tokenizer_config.json").read_text())
    assert (
        json.loads((out / "tokenizer.json").read_text())["added_tokens"]
        == (json.loads((data / "zoo" / "base" / "tokenizer.json").read_text())["added_tokens"])
    )


def test_a_tokenizer_with_a_pad_token_is_copied_as_it_is(
    open_model: Callable[..., ResidentModel],
) -> None:
    tokenizer = open_model("llama").tokenizer
    own, note = padding_tokenizer(tokenizer)
    assert note is None
    assert own is not tokenizer
    assert own.pad_token == tokenizer.pad_token


def test_what_a_rehearsal_finds_is_told(
    search_content: dict[str, Any], tmp_path: Path, data: Path
) -> None:
    (tmp_path / "none.py").write_text("def none(item, answer): return None\n", encoding="utf-8")
    search_content["objectives"][0] |= {
        "scorer": f"{tmp_path}/none.py:none",
        "system_prompt": "Denke nach. " * 60,
    }
    notes = Workbench(parse_search(search_content, "here")).rehearse()
    assert notes[0].startswith("zoo_ja: 70 of 70 items are longer than the model's context, such ")
    assert notes[1] == "zoo_ja: its first item could not be scored: scorer none gave None"


def test_settings_that_leave_no_room_for_a_prompt_are_refused(
    search_content: dict[str, Any], data: Path
) -> None:
    file = {"file": str(data / "benchmarks" / "items" / "zoo_ja.parquet"), "max_tokens": 256}
    file |= {"question": "prompt", "answer": "target"}
    search_content["objectives"] = [{"benchmark": file, "search_items": 20, "fresh_items": 20}]
    bench = Workbench(parse_search(search_content, "here"))
    with pytest.raises(InputError, match="zoo_ja: none of its items can be answered: max_gen_toks"):
        bench.rehearse()
