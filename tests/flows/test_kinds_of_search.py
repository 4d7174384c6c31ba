"""What a search file can ask for beside the plain search, each whole, on the shipped models."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console
from transformers import AutoModelForCausalLM

from flows.result import print_result
from mergelib.judging import candidates_of, judge_of
from mergelib.recipes import Recipe
from mergelib.runs import Run
from mergelib.stopping import progress_of
from mergelib.story import Story
from tests.conftest import DATA, small_search
from tests.flows.conftest import run_search
from tests.flows.test_evolve import decided


def _second_benchmark() -> dict[str, Any]:
    first = small_search()["objectives"][0]
    return {**first, "benchmark": str(DATA / "benchmarks" / "zoo_de.yaml")}


def _short(name: str) -> dict[str, Any]:
    content = small_search()
    content["name"] = name
    content["evolution"] = {"algorithm": "cma_es", "population": 4, "generations": 2}
    return content


def _ledger(run: Run) -> dict[str, Any]:
    ledger: dict[str, Any] = json.loads(run.path("ledger.json").read_text())
    return ledger


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search whose candidates race over 10 items on rungs of 2, 5 and 10."""
    content = _short("race")
    content["fitness"]["racing"] = True
    content["evolution"]["generations"] = 3
    return run_search(content, tmp_path_factory.mktemp("race"))


def test_a_race_asks_the_better_half_more(raced: Run) -> None:
    for number in range(3):
        rows = raced.generation(number).to_pylist()
        asked = sorted(row["items"] for row in rows)
        # Four on 2 items, two on 5, one on all 10, and on 5 more if it challenged the incumbent.
        assert asked[:3] == [2, 2, 5]
        assert asked[3] in (10, 15)
        best = max(row["fitness"] for row in rows if row["items"] >= 10)
        assert all(row["fitness"] <= best for row in rows)
    first = raced.generation(0).to_pylist()
    assert [row["items"] for row in first if row["incumbent"]] == [15]


def _renewed(generations: int) -> dict[str, Any]:
    content = _short("renewed")
    content["evolution"] = {"algorithm": "bayesian", "population": 2, "generations": generations}
    content["fitness"]["renew"] = 1
    return content


@pytest.fixture(scope="module")
def renewed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search whose candidates are asked other items in each of four generations."""
    return run_search(_renewed(4), tmp_path_factory.mktemp("renewed"))


def test_renewed_items_are_none_of_those_that_decide(renewed: Run) -> None:
    run = renewed
    stages = [f"{number:04d}" for number in range(4)]
    asked = {
        stage: set(run.table(f"responses/{stage}.parquet")["item_id"].to_pylist())
        for stage in [*stages, "deciding"]
    }
    assert len(asked["deciding"]) == 20
    for stage in stages:
        assert len(asked[stage]) == 10
        assert not asked[stage] & asked["deciding"]
    assert len({frozenset(asked[stage]) for stage in stages}) >= 3


def test_what_later_candidates_say_of_the_items_changes_earlier_estimates(renewed: Run) -> None:
    now = candidates_of(renewed).to_pylist()
    then = [row for number in range(4) for row in renewed.generation(number).to_pylist()]
    assert [row["individual"] for row in now] == [row["individual"] for row in then]
    fitness = {tuple(row["genome"]): row["fitness"] for row in now}
    told = {tuple(one["genome"]): one["fitness"][0] for one in renewed.state(3)["told"]}
    assert told == fitness
    for row, before in zip(now, then, strict=True):
        assert row["low_zoo_ja"] <= row["estimate_zoo_ja"] <= row["high_zoo_ja"]
        same = row["fitness"] == pytest.approx(before["fitness"], rel=1e-6)
        assert same == (row["generation"] == 3)
    estimates = {row["individual"]: row["estimate_zoo_ja"] for row in now}
    for row in renewed.table("finalists.parquet").to_pylist():
        if row["role"] in ("finalist", "winner"):
            assert row["estimate"] == estimates[row["model"]]
    report = " ".join(renewed.path("report.html").read_text().split())
    assert "and again after each generation on what the candidates had answered" in report


def test_a_search_that_calibrates_again_goes_on_as_if_it_had_not_stopped(
    renewed: Run, tmp_path: Path
) -> None:
    run_search(_renewed(2), tmp_path)
    run = run_search(_renewed(4), tmp_path)
    for number in range(4):
        columns = ["individual", "genome", "fitness", "low_zoo_ja", "high_zoo_ja"]
        expected = renewed.generation(number).select(columns)
        assert run.generation(number).select(columns).equals(expected)
        assert run.state(number) == renewed.state(number)


def test_an_incumbent_is_overtaken_on_common_items_only(raced: Run) -> None:
    """Each new incumbent had more right answers than the one before on the items of both."""
    answers: dict[str, dict[str, int]] = {}
    for number in range(3):
        for row in raced.table(f"responses/{number:04d}.parquet").to_pylist():
            answers.setdefault(row["model"], {})[row["item_id"]] = row["response"]
    before: str | None = None
    for number in range(3):
        rows = raced.generation(number).to_pylist()
        for row in (row for row in rows if row["items"] == 15):
            model = row["individual"]
            if before is not None:
                common = answers[before].keys() & answers[model].keys()
                gain = sum(answers[model][i] - answers[before][i] for i in common)
                assert len(common) == 15
                assert row["incumbent"] == (gain > 0)
            if row["incumbent"]:
                before = model
    assert before is not None


def test_the_ledger_says_what_each_rung_cost(raced: Run) -> None:
    stages = _ledger(raced)["stages"]
    assert list(stages)[:3] == ["endpoints", "calibration", "uniform"]
    # Recipes that were answered before, in the sweep or in an earlier generation, cost nothing.
    assert 0 < stages["rung 1"]["items"] <= 3 * 4 * 2
    assert 0 < stages["rung 2"]["items"] <= 3 * 2 * 3
    assert 0 < stages["rung 3"]["items"] <= 3 * 1 * 5
    assert 0 < stages["challengers"]["items"] <= 3 * 10
    assert sum(stage["items"] for stage in stages.values()) == _ledger(raced)["spent"]["items"]
    assert "rung 2" in raced.path("report.html").read_text()


def test_a_race_that_is_begun_again_ends_the_same(raced: Run, tmp_path: Path) -> None:
    document = yaml.safe_load(raced.path("search.yaml").read_text())
    del document["resolved"]
    document["evolution"]["generations"] = 1
    run_search(document, tmp_path)
    document["evolution"]["generations"] = 3
    again = run_search(document, tmp_path)
    assert decided(again) == decided(raced)


def _smoothing_race(generations: int) -> dict[str, Any]:
    content = _short("smoothing-race")
    content["evolution"] |= {"algorithm": "bayesian", "generations": generations}
    content["fitness"]["racing"] = True
    return content


@pytest.fixture(scope="module")
def smoothing_race(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A race of an algorithm that smooths."""
    return run_search(_smoothing_race(4), tmp_path_factory.mktemp("smoothing-race"))


def test_an_algorithm_that_smooths_races_on_other_items_each_generation(
    smoothing_race: Run,
) -> None:
    run = smoothing_race
    assert "challengers" not in _ledger(run)["stages"]
    deciding = set(run.table("responses/deciding.parquet")["item_id"].to_pylist())
    of_generations = set()
    for number in range(4):
        rows = run.generation(number).to_pylist()
        assert sorted(row["items"] for row in rows) == [2, 2, 5, 10]
        assert not any(row["incumbent"] for row in rows)
        asked: dict[str, set[str]] = {}
        for row in run.table(f"responses/{number:04d}.parquet").to_pylist():
            asked.setdefault(row["model"], set()).add(row["item_id"])
        most, *others = sorted(asked.values(), key=len, reverse=True)
        assert not most & deciding
        for before, items in zip([most, *others], others, strict=False):
            assert items <= before
        of_generations.add(frozenset(most))
    assert len(of_generations) >= 3


def test_it_is_told_how_many_answers_a_score_rests_on(smoothing_race: Run) -> None:
    rows = candidates_of(smoothing_race).to_pylist()
    told = {tuple(one["genome"]): one for one in smoothing_race.state(3)["told"]}
    uniform = smoothing_race.table("uniform.parquet")["genome"].to_pylist()
    answered_before = set(map(tuple, uniform))
    for genome in answered_before:
        # Whatever became of it in the race, it has answered all anchors.
        assert told[genome]["answers"] == 10
    candidates = {tuple(r["genome"]): r for r in rows if tuple(r["genome"]) not in answered_before}
    assert len(candidates) < len(rows)
    assert {told[genome]["answers"] for genome in candidates} == {2, 5, 10}
    for genome, row in candidates.items():
        # Not held to be behind those that went on: their scores are what they are.
        assert told[genome]["fitness"] == [row["fitness"]]
        assert row["fitness"] == pytest.approx(row["estimate_zoo_ja"], abs=1e-9)
    merges = [one["answers"] for genome, one in told.items() if genome not in candidates]
    # Three calibration merges on half of 40 items, and uniform merges on all anchors.
    assert sorted(merges, reverse=True)[:3] == [20, 20, 20]
    assert set(merges[3:]) == {10}


def test_the_report_says_how_it_raced(smoothing_race: Run, raced: Run) -> None:
    smooth, ranked = (
        " ".join(run.path("report.html").read_text().split()) for run in (smoothing_race, raced)
    )
    held = "who was ahead of the best so far was held to it on further items"
    assert "raced over 10 items of a benchmark in 3 rungs" in smooth
    assert "The items were other ones in each generation, chosen by" in smooth
    assert held not in smooth
    assert held in ranked
    assert "The items were chosen by" in ranked


def test_the_best_so_far_got_to_the_end_of_a_race(smoothing_race: Run) -> None:
    best = []
    for number in range(4):
        (last,) = [r for r in smoothing_race.generation(number).to_pylist() if r["items"] == 10]
        best.append(last["fitness"])
    reached = progress_of(smoothing_race, judge_of(smoothing_race, 0))
    np.testing.assert_allclose(reached, np.maximum.accumulate(best))


def test_the_last_generation_is_shown_by_how_far_its_candidates_got(smoothing_race: Run) -> None:
    shown = Story(smoothing_race).population
    assert [row["items"] for row in shown] == [10, 5, 2, 2]
    (column,) = (name for name in shown[0] if name.endswith(", %"))
    percents = [float(row[column].split()[0]) for row in shown]
    assert percents[2] >= percents[3]


def test_such_a_race_goes_on_as_if_it_had_not_stopped(smoothing_race: Run, tmp_path: Path) -> None:
    run_search(_smoothing_race(2), tmp_path)
    run = run_search(_smoothing_race(4), tmp_path)
    assert decided(run) == decided(smoothing_race)
    assert run.state(3) == smoothing_race.state(3)


def test_weights_make_one_winner_of_several_objectives(tmp_path: Path) -> None:
    content = _short("weights")
    content["endpoints"].append(str(DATA / "zoo" / "de"))
    content["objectives"][0]["weight"] = 3
    content["objectives"].append({**_second_benchmark(), "weight": 1})
    run = run_search(content, tmp_path)
    for row in run.generation(1).to_pylist():
        mean = 0.75 * row["estimate_zoo_ja"] + 0.25 * row["estimate_zoo_de"]
        assert row["fitness"] == pytest.approx(mean)
    winners = [r for r in run.table("finalists.parquet").to_pylist() if r["role"] == "winner"]
    assert {row["benchmark"] for row in winners} == {"zoo_ja", "zoo_de"}
    assert len({row["model"] for row in winners}) == 1
    assert run.has("winner/model.safetensors")
    report = run.path("report.html").read_text()
    assert "weighted mean is" in report
    shown = StringIO()
    print_result(run, Console(file=shown, width=200))
    assert f"Models: {run.path('winner')}" in shown.getvalue()
    assert "front" not in run.path("winner/README.md").read_text()
    assert "fresh items of zoo_ja" in report
    assert "fresh items of zoo_de" in report


def test_a_constraint_ranks_what_breaks_it_last(tmp_path: Path) -> None:
    content = _short("limits")
    content["constraints"] = [{**_second_benchmark(), "below_base": 0.05}]
    run = run_search(content, tmp_path)
    bank = {row["benchmark"] for row in run.table("bank.parquet").to_pylist()}
    assert bank == {"zoo_ja", "zoo_de"}
    base = run.workbench().model_digest(str(run.search.base))
    answers = run.table("responses/prepare.parquet").to_pylist()
    of_base = [r["response"] for r in answers if r["model"] == base and r["benchmark"] == "zoo_de"]
    floor = float(np.mean(of_base)) - 0.05
    rows = [row for number in range(2) for row in run.generation(number).to_pylist()]
    for row in rows:
        short = floor - row["estimate_zoo_de"]
        expected = -short if short > 0 else row["estimate_zoo_ja"]
        assert row["fitness"] == pytest.approx(expected)
    assert "zoo_de: at most 5.0 points below the base" in run.path("report.html").read_text()


def test_a_gene_chooses_the_method_and_steps_are_kept(tmp_path: Path) -> None:
    content = _short("methods")
    content["merge"] = {
        "method": ["task_arithmetic", "slerp", "ties"],
        "parameters": {
            "weight": {"low": 0.0, "high": 1.5, "step": 0.25},
            "t": {"low": 0.0, "high": 1.0},
            "density": 0.8,
        },
        "export_dtype": "float32",
    }
    run = run_search(content, tmp_path)
    rows = [row for number in range(2) for row in run.generation(number).to_pylist()]
    rows += run.table("uniform.parquet").to_pylist()
    methods = {yaml.safe_load(row["recipe"])["merge_method"] for row in rows}
    assert methods == {"task_arithmetic", "slerp", "ties"}
    assert all(row["status"] == "ok" for row in rows)
    for row in rows:
        recipe = Recipe.from_yaml(row["recipe"])
        for model in recipe.config["models"]:
            for value in model.get("parameters", {}).values():
                assert value in [0.25 * n for n in range(7)]
        assert ("t" in recipe.config.get("parameters", {})) == (recipe.method == "slerp")


def test_layers_of_the_endpoints_are_put_one_after_the_other(tmp_path: Path) -> None:
    content = _short("path")
    depth = AutoModelForCausalLM.from_pretrained(DATA / "zoo" / "base").config.num_hidden_layers
    content["merge"] = {
        "method": "passthrough",
        "path": {"length": depth + 1, "reach": 1, "scale": {"low": 0.5, "high": 1.5}},
        "export_dtype": "float32",
    }
    content.pop("base")
    run = run_search(content, tmp_path)
    rows = [row for number in range(2) for row in run.generation(number).to_pylist()]
    assert all(row["status"] == "ok" for row in rows)
    winner = AutoModelForCausalLM.from_pretrained(run.path("winner"))
    assert winner.config.num_hidden_layers == depth + 1
    slices = yaml.safe_load(run.path("winner/mergekit_config.yml").read_text())["slices"]
    assert len(slices) == depth + 1
    first = slices[0]["sources"][0]
    donor = AutoModelForCausalLM.from_pretrained(first["model"]).state_dict()
    number = first["layer_range"][0]
    ours = winner.state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert ours.equal(donor[f"model.layers.{number}.mlp.up_proj.weight"])


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ({"answers": 150}, "items were answered"),
        ({"target": 0.001}, "the target was reached"),
        ({"hours": 1e-6}, "hours"),
    ],
)
def test_a_stop_rule_ends_a_search_that_can_be_extended(
    tmp_path: Path, stop: dict[str, float], reason: str
) -> None:
    content = _short("stopped")
    content["evolution"] |= {"generations": 3, "stop": stop}
    run = run_search(content, tmp_path)
    assert run.finished_generations() == 1
    assert reason in _ledger(run)["stopped"]
    assert reason in run.path("report.html").read_text()
    content["evolution"]["stop"] = {}
    extended = run_search(content, tmp_path)
    assert extended.finished_generations() == 3
    assert _ledger(extended)["stopped"] == "all 3 generations are finished"
    assert _ledger(extended)["answered_twice"] == 0


def test_a_raised_limit_goes_on_as_if_it_had_been_there_from_the_start(tmp_path: Path) -> None:
    content = _short("raised")
    content["evolution"] |= {"generations": 4, "stop": {"answers": 150}}
    assert run_search(content, tmp_path / "twice").finished_generations() == 1
    content["evolution"]["stop"] = {"answers": 290}
    twice = run_search(content, tmp_path / "twice")
    once = run_search(content, tmp_path / "once")
    assert 1 < once.finished_generations() < 4
    assert decided(twice) == decided(once)
    assert _ledger(twice)["stopped"] == _ledger(once)["stopped"]


def test_a_front_races_within_a_limit(tmp_path: Path) -> None:
    content = _short("front-race")
    content["objectives"].append(_second_benchmark())
    en = {**_second_benchmark(), "benchmark": str(DATA / "benchmarks" / "zoo_en.yaml")}
    content["constraints"] = [{**en, "below_base": 0.9}]
    content["evolution"] |= {"algorithm": "nsga2", "population": 6}
    content["fitness"]["racing"] = {"rungs": 2, "keep": 0.5}
    run = run_search(content, tmp_path)
    rows = [row for number in range(2) for row in run.generation(number).to_pylist()]
    assert {row["items"] for row in rows} == {15, 30}
    assert not any(row["incumbent"] for row in rows)
    assert "challengers" not in _ledger(run)["stages"]
    report = run.path("report.html").read_text()
    assert "zoo_en: at most 90.0 points below the base" in report
    assert "How the front grew" in report


@pytest.mark.parametrize("algorithm", ["natural_niches", "map_elites"])
def test_algorithms_that_look_at_more_than_fitness_are_told_more(
    tmp_path: Path, algorithm: str
) -> None:
    content = _short(algorithm)
    content["evolution"]["algorithm"] = algorithm
    run = run_search(content, tmp_path)
    assert run.finished_generations() == 2
    state = run.state(1)
    if algorithm == "map_elites":
        # Told of no descriptors, it would keep one elite in one cell.
        assert len({elite["cell"] for elite in state["elites"]}) > 1
    else:
        assert {len(answers) for answers in state["responses"]} == {10}


GRADED = """\
def grade(doc, results):
    # The share of the target's digits that are there, from the right.
    digits, given = doc["target"], results[0]
    pairs = zip(reversed(digits), reversed(given))
    return {"digits": sum(a == b for a, b in pairs) / len(digits)}
"""


@pytest.mark.parametrize("estimator", ["parent_irt", "mean"])
def test_graded_scores_are_searched_and_their_means_reported(
    tmp_path: Path, estimator: str
) -> None:
    for name in ("_zoo_generate", "zoo_items.py"):
        (tmp_path / name).write_text((DATA / "benchmarks" / name).read_text())
    (tmp_path / "items").symlink_to(DATA / "benchmarks" / "items")
    (tmp_path / "grading.py").write_text(GRADED)
    task = (
        "include: _zoo_generate\ntask: graded\ndataset_kwargs: {language: ja}\n"
        "process_results: !function grading.grade\n"
        "metric_list:\n  - {metric: digits, aggregation: mean, higher_is_better: true}\n"
    )
    (tmp_path / "graded.yaml").write_text(task)
    content = _short("graded")
    content["objectives"][0]["benchmark"] = str(tmp_path / "graded.yaml")
    content["fitness"]["estimator"] = estimator
    run = run_search(content, tmp_path / "store")
    answers = run.table("responses/fresh.parquet").to_pylist()
    assert any(0 < row["value"] < 1 and row["response"] is None for row in answers)
    for row in run.table("finalists.parquet").to_pylist():
        values = [a["value"] for a in answers if a["model"] == row["model"]]
        assert row["score"] == pytest.approx(np.mean(values))
        assert row["low"] <= row["score"] <= row["high"]
    threshold = run.table("bank.parquet")["threshold"][0].as_py()
    assert 0 <= threshold < 1
