from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mergelib.calibration import all_asked, calibrate_banks, calibration_plan, fit_intervals
from mergelib.deciding import leaders
from mergelib.errors import InputError
from mergelib.evaluation import Evaluation, nothing_done
from mergelib.finalists import Contender
from mergelib.fitness import Judge
from mergelib.judging import judge_of
from mergelib.runs import Run
from mergelib.search import parse_search
from mergelib.tables import Answered, responses_table
from mergelib.workbench import Workbench, open_workbench


@pytest.fixture(scope="module")
def bench() -> Workbench:
    from tests.conftest import small_search

    return Workbench(parse_search(small_search(), "test"))


def _evaluation(asked: dict[str, list[str]], right: set[str]) -> Evaluation:
    evaluation = nothing_done("ok", None)
    for name, ids in asked.items():
        marks = [int(item in right) for item in ids]
        evaluation["responses"][name] = [[mark, float(mark), "", None] for mark in marks]
        evaluation["items"] += len(ids)
    return evaluation


@pytest.fixture(scope="module")
def prepared(bench: Workbench) -> pa.Table:
    """Responses as if math knew the first 30 items, ja the last 10, and merges something else."""
    everything = all_asked(bench, "search")
    ids = everything["zoo_ja"]
    known = {"base": set(ids[:2]), "math": set(ids[:30]), "ja": set(ids[30:])}
    answers = [
        Answered(c.fingerprint, everything, _evaluation(everything, known[c.name]), False)
        for c in bench.checkpoints.values()
    ]
    for number, (recipe, asked) in enumerate(calibration_plan(bench)):
        model = bench.model_digest(recipe.to_yaml())
        answers.append(Answered(model, asked, _evaluation(asked, set(ids[number::3])), False))
    return responses_table(answers)


@pytest.fixture(scope="module")
def judge(bench: Workbench, prepared: pa.Table) -> Judge:
    banks = calibrate_banks(bench, prepared)
    return Judge(bench.search, bench, banks, prepared, fit_intervals(bench, banks, prepared))


def test_calibration_merges_answer_overlapping_random_shares(bench: Workbench) -> None:
    plan = calibration_plan(bench)
    shares = [set(asked["zoo_ja"]) for _, asked in plan]
    assert [len(share) for share in shares] == [20, 20, 20]
    assert len(set.union(*shares)) > 20
    assert len({recipe.to_yaml() for recipe, _ in plan}) == 3
    assert [r.to_yaml() for r, _ in calibration_plan(bench)] == [r.to_yaml() for r, _ in plan]


def test_anchors_are_items_of_the_search_pool_and_deciding_items_are_others(
    bench: Workbench, judge: Judge
) -> None:
    pool = set(all_asked(bench, "search")["zoo_ja"])
    anchors = set(judge.anchors["zoo_ja"])
    deciding = set(judge.unseen(20)["zoo_ja"])
    assert len(anchors) == 10
    assert len(deciding) == 20
    assert anchors <= pool
    assert deciding <= pool - anchors
    assert len(judge.unseen(1000)["zoo_ja"]) == 30


def test_generations_are_asked_other_items_and_none_that_decides(prepared: pa.Table) -> None:
    from tests.conftest import small_search

    content = small_search()
    content["evolution"]["algorithm"] = "bayesian"
    content["fitness"]["renew"] = 1
    content["deciding_items"] = 20
    search = parse_search(content, "test")
    # As a run has it: what only its end depends on is in the search alone.
    bench = open_workbench(search)
    banks = calibrate_banks(bench, prepared)
    judge = Judge(search, bench, banks, prepared, fit_intervals(bench, banks, prepared))
    (name,) = bench.benchmarks
    assert judge.asked_in(0) == judge.rungs
    asked = [judge.asked_in(generation)[0][name] for generation in range(1, 5)]
    deciding = set(judge.unseen(20)[name])
    assert len(deciding) == 20
    for items in asked:
        assert len(items) == 10
        assert not deciding & set(items)
    assert len({tuple(items) for items in [judge.anchors[name], *asked]}) >= 3
    assert judge.asked_in(2)[0][name] == asked[1]


def test_more_right_answers_estimate_higher(judge: Judge) -> None:
    asked = judge.anchors
    ids = asked["zoo_ja"]
    answered = [
        Answered(str(n), asked, _evaluation(asked, set(ids[:n])), False) for n in (0, 5, 10)
    ]
    (estimates,) = judge.estimate(responses_table(answered), ["0", "5", "10"]).values()
    assert np.all(np.diff(estimates.value) > 0)
    assert np.all(estimates.low <= estimates.value)
    assert np.all(estimates.value <= estimates.high)


def test_the_last_digit_of_an_estimate_puts_no_candidate_before_its_equal(judge: Judge) -> None:
    """With another number of threads a sum ends in another digit."""
    one, other, better = judge.of_means(np.array([[0.3], [0.1 + 0.2], [0.3 + 1e-6]]))
    assert one == other
    assert better > one


def test_a_failed_candidate_is_in_the_table_without_a_score(bench: Workbench, judge: Judge) -> None:
    asked = judge.anchors
    genome = [0.5] * bench.space.dimension
    recipe = bench.space.decode(genome)
    answered = [
        Answered("good", asked, _evaluation(asked, set(asked["zoo_ja"][:5])), True),
        Answered("bad", asked, nothing_done("failed", "tensor x is not finite"), False),
    ]
    table = judge.table(7, [genome, genome], [recipe, recipe], answered)
    good, bad = table.to_pylist()
    assert (good["status"], good["generation"], good["reused"]) == ("ok", 7, True)
    assert (bad["status"], bad["reason"]) == ("failed", "tensor x is not finite")
    assert bad["fitness"] is None
    assert np.isnan(judge.told(table)).tolist() == [[False], [True]]


def test_a_recipe_that_is_there_twice_is_scored_twice(bench: Workbench, judge: Judge) -> None:
    asked = judge.anchors
    genome = [0.5] * bench.space.dimension
    once = Answered("same", asked, _evaluation(asked, set(asked["zoo_ja"][:5])), False)
    recipe = bench.space.decode(genome)
    first, second = judge.table(0, [genome] * 2, [recipe] * 2, [once, once]).to_pylist()
    assert first == second
    assert first["status"] == "ok"


def test_unscored_answers_count_as_not_asked(judge: Judge) -> None:
    asked = judge.anchors
    half = _evaluation(asked, set(asked["zoo_ja"]))
    nulls: list[list[Any]] = [[None, None, "", "no answer"]] * 5
    half["responses"]["zoo_ja"][5:] = nulls
    fewer = {"zoo_ja": asked["zoo_ja"][:5]}
    alone = Answered("b", fewer, _evaluation(fewer, set(asked["zoo_ja"])), False)
    responses = responses_table([Answered("a", asked, half, False), alone])
    (both,) = judge.estimate(responses, ["a", "b"]).values()
    assert both.value[0] == pytest.approx(both.value[1])


def test_an_endpoint_without_a_score_is_an_input_error(bench: Workbench) -> None:
    everything = all_asked(bench, "search")
    answers = [
        Answered(c.fingerprint, everything, nothing_done("failed", "metric is no number"), False)
        for c in bench.checkpoints.values()
    ]
    with pytest.raises(InputError, match="can be scored: metric is no number"):
        calibrate_banks(bench, responses_table(answers))


def test_a_run_that_an_earlier_version_prepared_is_an_input_error(
    bench: Workbench, prepared: pa.Table, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    run.prepare(bench.search, bench.contents)
    run.write_table("responses/prepare.parquet", prepared)
    banks = calibrate_banks(bench, prepared)
    run.write_json("intervals.json", fit_intervals(bench, banks, prepared))
    run.write_table("bank.parquet", banks)
    assert len(judge_of(run).anchors["zoo_ja"]) == 10
    run.write_table("bank.parquet", banks.drop_columns(["rung"]))
    with pytest.raises(InputError, match="earlier version of mergeflow.*another --store"):
        judge_of(run)


def test_a_limit_below_the_base_is_held_to_the_base_on_the_same_items() -> None:
    from tests.conftest import DATA, small_search

    content = small_search()
    german = {**content["objectives"][0], "benchmark": str(DATA / "benchmarks" / "zoo_de.yaml")}
    content["constraints"] = [{**german, "below_base": 0.05}]
    bench = Workbench(parse_search(content, "test"))
    everything = all_asked(bench, "search")
    right = {item for ids in everything.values() for item in ids[:20]}
    answers = [
        Answered(c.fingerprint, everything, _evaluation(everything, right), False)
        for c in bench.checkpoints.values()
    ]
    for recipe, asked in calibration_plan(bench):
        model = bench.model_digest(recipe.to_yaml())
        answers.append(Answered(model, asked, _evaluation(asked, right), False))
    prepared = responses_table(answers)
    banks = calibrate_banks(bench, prepared)
    judge = Judge(bench.search, bench, banks, prepared, fit_intervals(bench, banks, prepared))

    # All that are asked now are too hard in German for the base, which has half of the pool right.
    asked = {"zoo_ja": everything["zoo_ja"][:10], "zoo_de": everything["zoo_de"][20:30]}
    assert judge.base_on(everything) == {"zoo_ja": 0.5, "zoo_de": 0.5}
    assert judge.base_on(asked) == {"zoo_ja": 1.0, "zoo_de": 0.0}
    good = Answered("good", asked, _evaluation(asked, set(asked["zoo_ja"])), False)
    keeps = Answered("keeps", asked, _evaluation(asked, set(asked["zoo_de"])), False)
    responses = responses_table([keeps, good])
    contenders = [Contender(model, model, "finalist", model, {}) for model in ("keeps", "good")]
    assert [one.model for one in leaders(contenders, responses, judge)] == ["good", "keeps"]
    assert judge.overtakes(responses, "good", "keeps")
    assert not judge.overtakes(responses, "keeps", "good")
