"""Whole searches, in this process, on the shipped models."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.finish import decided_in_rounds
from mergelib.errors import InputError, SearchError
from mergelib.evaluation import Asked, nothing_done
from mergelib.evolution.front import non_dominated
from mergelib.finalists import Contender, best_of
from mergelib.judging import judge_of
from mergelib.recipes import Recipe
from mergelib.runs import Run
from mergelib.tables import Answered
from tests.conftest import DATA, small_search
from tests.flows.conftest import run_search


def test_the_run_folder_holds_every_file_of_the_design(finished: Run) -> None:
    for name in (
        "search.yaml",
        "items.parquet",
        "responses.parquet",
        "bank.parquet",
        "uniform.parquet",
        "finalists.parquet",
        "ledger.json",
        "report.html",
        "winner/config.json",
        "winner/model.safetensors",
        "winner/tokenizer.json",
        "winner/mergekit_config.yml",
        "winner/README.md",
    ):
        assert finished.has(name), name
    assert finished.finished_generations() == 3


def test_generations_have_the_columns_that_other_programs_rely_on(finished: Run) -> None:
    table = finished.generation(1)
    expected = {"generation", "individual", "genome", "recipe", "fitness", "status", "reason"}
    expected |= {"reused", "items", "incumbent", "seconds_merge", "seconds_answer"}
    expected |= {"estimate_zoo_ja", "low_zoo_ja", "high_zoo_ja"}
    assert set(table.column_names) == expected
    for row in table.to_pylist():
        assert row["low_zoo_ja"] <= row["fitness"] <= row["high_zoo_ja"]
        assert row["items"] == 10
        assert yaml.safe_load(row["recipe"])["merge_method"] == "task_arithmetic"


def test_no_search_item_is_a_fresh_one(finished: Run) -> None:
    items = finished.table("items.parquet").to_pylist()
    pool = {item["item_id"]: item["split"] for item in items}
    asked = {"fresh": set(), "search": set()}
    for row in finished.table("responses.parquet").to_pylist():
        asked[pool[row["item_id"]]].add(row["model"])
    candidates = {row["individual"] for n in range(3) for row in finished.generation(n).to_pylist()}
    finalists = set(finished.table("finalists.parquet")["model"].to_pylist())
    assert asked["fresh"] == finalists
    assert candidates <= asked["search"]
    prompts = {split: {i["prompt"] for i in items if i["split"] == split} for split in asked}
    assert not prompts["fresh"] & prompts["search"]


def test_the_ledger_counts_every_answer_once(finished: Run) -> None:
    ledger = json.loads(finished.path("ledger.json").read_text())
    responses = finished.table("responses.parquet").to_pylist()
    assert ledger["answered_twice"] == 0
    assert ledger["full_evaluation"]["items"] == 70 * ledger["models"]
    assert ledger["spent"]["items"] <= len(responses)
    # Anchor items are answered again only by recipes that had been answered: their rows repeat.
    assert ledger["spent"]["items"] == len({(r["model"], r["item_id"]) for r in responses})


def test_the_winner_scores_in_lm_eval_what_the_report_says(finished: Run) -> None:
    """lm-eval's own evaluation, with its defaults, on the exported folder and the same items."""
    winner = next(
        row for row in finished.table("finalists.parquet").to_pylist() if row["role"] == "winner"
    )
    fresh = [
        int(item["item_id"].split("/")[1])
        for item in finished.table("items.parquet").to_pylist()
        if item["split"] == "fresh"
    ]
    results = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(finished.path("winner"))},
        batch_size=8,
        device="cpu",
        tasks=["zoo_ja"],
        samples={"zoo_ja": fresh},
        task_manager=TaskManager(include_path=str(DATA / "benchmarks"), include_defaults=False),
        bootstrap_iters=0,
    )
    assert results["results"]["zoo_ja"]["exact_match,answer"] == pytest.approx(winner["score"])


def test_the_exported_recipe_merges_to_the_exported_weights(finished: Run) -> None:
    """The folder opens by itself, and holds what its mergekit_config.yml says."""
    folder = finished.path("winner")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).bos_token_id is not None
    recipe = Recipe.from_yaml((folder / "mergekit_config.yml").read_text())
    weights = [entry["parameters"]["weight"][-1]["value"] for entry in recipe.config["models"]]
    base, math, ja = (
        AutoModelForCausalLM.from_pretrained(DATA / "zoo" / name, dtype=torch.float32)
        for name in ("base", "math", "ja")
    )
    expected = base.lm_head.weight + sum(
        weight * (endpoint.lm_head.weight - base.lm_head.weight)
        for weight, endpoint in zip(weights, (math, ja), strict=True)
    )
    torch.testing.assert_close(model.lm_head.weight, expected)


def test_a_finished_search_is_not_done_again(finished: Run, store: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*") if p.is_file()}
    run_search(yaml.safe_load(_search_text(finished)), store)
    after = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*") if p.is_file()}
    changed = {p.name for p in before if before[p] != after.get(p)}
    assert changed <= {".lock"}


def _search_text(run: Run) -> str:
    document = yaml.safe_load(run.path("search.yaml").read_text())
    del document["resolved"]
    return yaml.safe_dump(document)


def test_generations_can_be_raised_later(finished: Run, tmp_path: Path) -> None:
    """Two generations, then a third: the same as three at once, and nothing is answered twice."""
    content: dict[str, Any] = yaml.safe_load(_search_text(finished))
    content["evolution"]["generations"] = 2
    short = run_search(content, tmp_path)
    assert short.finished_generations() == 2
    content["evolution"]["generations"] = 3
    extended = run_search(content, tmp_path)
    assert decided(extended) == decided(finished)
    assert json.loads(extended.path("ledger.json").read_text())["answered_twice"] == 0
    content["evolution"]["generations"] = 1
    with pytest.raises(InputError, match=r"evolution\.generations: 1, but .* has 3 already"):
        run_search(content, tmp_path)


def decided(run: Run) -> list[Any]:
    """Everything about a run that must not depend on how often it was stopped."""
    tables = []
    for number in range(run.finished_generations()):
        table = run.generation(number)
        timed = [n for n in table.column_names if n == "reused" or n.startswith("seconds_")]
        tables.append(table.drop_columns(timed).to_pylist())
    return [tables, run.table("finalists.parquet").to_pylist()]


@pytest.mark.parametrize(
    ("finalists", "asked"), [(1, [8, 8]), (3, [8, 8, 8, 15, 30, 30])], ids=["one", "three"]
)
def test_fewer_and_fewer_answer_the_deciding_items(
    finalists: int, asked: list[int], own_store: Path
) -> None:
    """Of the 30 items that are no anchors, though 200 are asked for."""
    content = small_search() | {"finalists": finalists, "deciding_items": 200}
    run = run_search(content, own_store)
    rows = run.table("responses/deciding.parquet").to_pylist()
    assert len({(row["model"], row["item_id"]) for row in rows}) == len(rows)
    answered = Counter(row["model"] for row in rows)
    # Two uniform merges answer all; none of them is a finalist here.
    assert sorted(answered.values()) == sorted([*asked, 30, 30])


def test_who_fails_in_a_later_round_does_not_win(finished: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(finished.folder, tmp_path / "small")))
    judge = judge_of(run)
    uniform = best_of(run.table("uniform.parquet"), judge, 2, "uniform")
    asked_of: dict[str, int] = {}

    def let_answer(contenders: Sequence[Contender], asked: Asked, stage: str) -> list[Answered]:
        """The first finalist gets everything right, and fails the second time; others nothing."""
        answers = []
        for one in contenders:
            asked_of[one.name] = asked_of.get(one.name, 0) + 1
            first = next((name for name in asked_of if name.startswith("finalist")), None)
            failed = one.name == first and asked_of[one.name] > 1
            evaluation = (
                nothing_done("failed", "for a test") if failed else nothing_done("ok", None)
            )
            if not failed:
                right = float(one.name == first)
                evaluation["responses"] = {
                    name: [[right, right, "", None]] * len(items) for name, items in asked.items()
                }
            answers.append(Answered(one.model, asked, evaluation, False))
        return answers

    candidates, _, winner = decided_in_rounds(run, judge, uniform, let_answer)
    favourite = next(name for name in asked_of if name.startswith("finalist"))
    assert candidates[0].name == favourite
    assert asked_of[favourite] == 2
    assert winner == candidates[1].model


def test_another_search_of_that_name_is_refused(finished: Run, store: Path) -> None:
    content = yaml.safe_load(_search_text(finished))
    content["merge"]["layer_groups"] = 4
    with pytest.raises(InputError, match=r"merge\.layer_groups: the run in .* has 2, .* 4"):
        run_search(content, store)


def test_runs_of_one_store_share_their_answers(finished: Run, store: Path) -> None:
    content = yaml.safe_load(_search_text(finished))
    content["name"] = "twin"
    twin = run_search(content, store)
    ledger = json.loads(twin.path("ledger.json").read_text())
    assert ledger["answered"] == 0
    assert ledger["reused"] >= ledger["evaluations"] > 0
    assert all(twin.generation(1)["reused"].to_pylist())
    assert decided(twin) == decided(finished)


def test_a_front_is_exported_and_not_dominated(finished_front: Run) -> None:
    rows = finished_front.table("finalists.parquet").to_pylist()
    scores: dict[str, dict[str, float]] = {}
    roles = {}
    for row in rows:
        scores.setdefault(row["model"], {})[row["benchmark"]] = row["score"]
        roles[row["model"]] = row["role"]
    models = list(scores)
    matrix = np.array([[scores[m]["zoo_ja"], scores[m]["zoo_de"]] for m in models])
    on_front = {m for m, on in zip(models, non_dominated(matrix), strict=True) if on}
    winners = {m for m in models if roles[m] == "winner"}
    assert winners
    assert winners <= on_front
    folders = {path.name for path in finished_front.path("front").iterdir()}
    assert folders == {model[:12] for model in winners}


def test_candidates_that_cannot_be_merged_stop_a_search_with_their_reason(tmp_path: Path) -> None:
    content = yaml.safe_load(yaml.safe_dump(_hopeless()))
    with pytest.raises(SearchError, match=r"every candidate .* failed: tensor .* not finite"):
        run_search(content, tmp_path)


def _hopeless() -> dict[str, Any]:
    from tests.conftest import small_search

    content = small_search()
    content["name"] = "hopeless"
    content["merge"]["export_dtype"] = "float16"
    content["merge"]["parameters"] = {"weight": {"low": 1e8, "high": 1e9}}
    return content
