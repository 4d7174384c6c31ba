"""A search's calibration: several abilities, another run's bank, scores that are not 0 or 1."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mergelib.banks import bank_of, threshold_of
from mergelib.calibration import (
    abilities,
    all_asked,
    calibrate_banks,
    calibration_matrix,
    calibration_plan,
    fit_intervals,
)
from mergelib.errors import InputError
from mergelib.evaluation import Evaluation, nothing_done
from mergelib.files import write_json
from mergelib.fitness import Judge
from mergelib.irt.binarise import threshold
from mergelib.replay import DEFAULT_WIDENING
from mergelib.search import parse_search
from mergelib.tables import Answered, responses_table
from mergelib.workbench import Workbench
from tests.conftest import small_search

NAME = "zoo_ja"


def open_bench(**fitness: Any) -> Workbench:
    content = small_search()
    calibration = content["fitness"]["calibration"] | fitness.pop("calibration", {})
    content["fitness"] |= {**fitness, "calibration": calibration}
    return Workbench(parse_search(content, "test"))


def evaluation(asked: dict[str, list[str]], scores: dict[str, float]) -> Evaluation:
    """0 and 1 have a response, other scores a value alone."""
    found = nothing_done("ok", None)
    for name, ids in asked.items():
        values = [scores[item] for item in ids]
        found["responses"][name] = [[int(v) if v in (0, 1) else None, v, "", None] for v in values]
        found["items"] += len(ids)
    return found


def prepared(bench: Workbench, steps: int) -> pa.Table:
    """Responses as if ability and luck decided; scores in so many steps above 0."""
    rng = np.random.default_rng(3)
    everything = all_asked(bench, "search")
    plan = [(c.fingerprint, everything) for c in bench.checkpoints.values()]
    plan += [(bench.model_digest(r.to_yaml()), asked) for r, asked in calibration_plan(bench)]
    answers = []
    for level, (model, asked) in zip(np.linspace(0.3, 0.8, len(plan)), plan, strict=True):
        scores = rng.binomial(steps, level, len(everything[NAME])) / steps
        by_item = dict(zip(everything[NAME], scores.tolist(), strict=True))
        answers.append(Answered(model, asked, evaluation(asked, by_item), False))
    return responses_table(answers)


def judged(bench: Workbench, responses: pa.Table, levels: list[float], steps: int) -> Any:
    """Estimates of candidates that reach each level on the anchors."""
    banks = calibrate_banks(bench, responses)
    judge = Judge(bench.search, bench, banks, responses, fit_intervals(bench, banks, responses))
    asked = judge.anchors
    answered = []
    for level in levels:
        marks = [round(level * (n + 1)) - round(level * n) for n in range(len(asked[NAME]))]
        value = [float(m) for m in marks] if steps == 1 else [level] * len(marks)
        scores = dict(zip(asked[NAME], value, strict=True))
        answered.append(Answered(str(level), asked, evaluation(asked, scores), False))
    return judge.estimate(responses_table(answered), [str(level) for level in levels])[NAME]


@pytest.mark.filterwarnings("ignore:mp_irt equals p_irt")
@pytest.mark.parametrize("estimator", ["p_irt", "gp_irt", "mp_irt", "gmp_irt", "parent_irt"])
def test_every_item_response_model_works_with_two_abilities(estimator: str) -> None:
    bench = open_bench(estimator=estimator, calibration={"dimensions": 2, "models": 8})
    responses = prepared(bench, 1)
    banks = calibrate_banks(bench, responses)
    assert bank_of(banks, NAME).dimensions == 2
    assert np.array(abilities(bench, banks, responses)["ability"].to_pylist()).shape == (11, 2)
    fit = fit_intervals(bench, banks, responses)[NAME]
    assert fit["shift"]["sd"] == 0
    assert fit["replayed"] == 9
    found = judged(bench, responses, [0.1, 0.5, 0.9], 1)
    assert np.all(np.diff(found.value) > 0)
    assert np.all((found.low < found.value) & (found.value < found.high))


def test_the_documented_columns_stay_with_one_ability() -> None:
    bench = open_bench()
    banks = calibrate_banks(bench, prepared(bench, 1))
    assert banks.schema.field("discrimination").type == pa.float64()
    assert banks["threshold"].null_count == banks.num_rows == 40


def test_another_runs_bank_is_taken_as_it_is(tmp_path: Any) -> None:
    first = open_bench(calibration={"models": 8})
    responses = prepared(first, 1)
    banks = calibrate_banks(first, responses)
    path = tmp_path / "bank.parquet"
    pq.write_table(banks, path)
    given = {"calibration": {"source": str(path)}}
    own = responses.slice(0, 3 * 40)  # of the base and the endpoints

    alone = open_bench(**given)
    assert calibration_plan(alone) == []
    found = bank_of(calibrate_banks(alone, own), NAME)
    assert found.to_table().equals(bank_of(banks, NAME).to_table())
    fit = fit_intervals(alone, calibrate_banks(alone, own), own)[NAME]
    assert (fit["widening"], fit["replayed"], fit["coverage"]) == (DEFAULT_WIDENING, 0, None)
    assert np.all(np.diff(judged(alone, own, [0.1, 0.5, 0.9], 1).value) > 0)

    # with that run's intervals.json beside it, its shift and widening too
    fits = fit_intervals(first, banks, responses)
    fits[NAME]["widening"] = 1.37
    write_json(tmp_path / "intervals.json", fits)
    beside = open_bench(**given)
    fit = fit_intervals(beside, calibrate_banks(beside, own), own)[NAME]
    assert (fit["shift"], fit["widening"]) == (fits[NAME]["shift"], 1.37)
    assert set(beside.contents) - set(alone.contents) == {str(tmp_path / "intervals.json")}


def test_a_bank_that_does_not_fit_is_refused_before_any_work(tmp_path: Any) -> None:
    bench = open_bench(calibration={"models": 8, "dimensions": 2})
    banks = calibrate_banks(bench, prepared(bench, 1))
    path = tmp_path / "bank.parquet"
    key = r"fitness\.calibration\.source: .*bank\.parquet: "

    def refused(says: str, **fitness: Any) -> None:
        calibration = {"source": str(path), **fitness.pop("calibration", {})}
        with pytest.raises(InputError, match=key + says):
            open_bench(**fitness, calibration=calibration)

    pq.write_table(banks, path)
    refused("2 abilities for zoo_ja, but fitness.calibration.dimensions is 1")
    refused("an item bank, but gp_irt", estimator="gp_irt")
    assert open_bench(calibration={"source": str(path), "dimensions": "auto"}).given.banks
    pq.write_table(banks.slice(0, 37), path)
    refused("no parameters for 3 of the 40 items", calibration={"dimensions": 2})
    others = pa.array(["other"] * 40)
    pq.write_table(banks.set_column(0, "benchmark", others), path)
    refused("'zoo_ja' is not a benchmark of it; Allowed: other")


def test_too_few_models_in_a_file_for_so_many_abilities(tmp_path: Any) -> None:
    items = all_asked(open_bench(), "search")[NAME]
    rng = np.random.default_rng(0)
    columns = {item: rng.integers(0, 2, 3) for item in items}
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"model": ["a", "b", "c"], **columns}), path)
    open_bench(calibration={"source": str(path), "dimensions": 2})
    with pytest.raises(InputError, match=r"fitness\.calibration\.dimensions: 3 abilities from 3"):
        open_bench(calibration={"source": str(path), "dimensions": 3})


def test_scores_between_0_and_1_are_binarised_at_one_threshold() -> None:
    bench = open_bench()
    responses = prepared(bench, 5)
    banks = calibrate_banks(bench, responses)
    models = list(dict.fromkeys(responses["model"].to_pylist()))
    items = all_asked(bench, "search")[NAME]
    scores = calibration_matrix(bench, responses, NAME, models, items)
    c = threshold_of(banks, NAME)
    assert c == threshold(scores)
    assert set(np.unique(scores[~np.isnan(scores)])) == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    binary = calibration_matrix(bench, responses, NAME, models, items, c)
    np.testing.assert_array_equal(binary, np.where(np.isnan(scores), np.nan, scores > c))
    # any candidate is read by the calibration's threshold, whatever its own scores
    found = judged(bench, responses, [0.25, 0.95], 5)
    assert found.value[0] < 0.5 < found.value[1]


def test_a_given_bank_brings_its_threshold(tmp_path: Any) -> None:
    first = open_bench(calibration={"models": 8})
    responses = prepared(first, 5)
    banks = calibrate_banks(first, responses)
    c = threshold_of(banks, NAME)
    assert c is not None
    place = banks.schema.get_field_index("threshold")
    other = pa.array([c / 2] * banks.num_rows)
    pq.write_table(banks.set_column(place, "threshold", other), tmp_path / "bank.parquet")
    second = open_bench(calibration={"source": str(tmp_path / "bank.parquet")})
    assert threshold_of(calibrate_banks(second, responses.slice(0, 120)), NAME) == c / 2


def test_the_mean_keeps_scores_as_they_are() -> None:
    bench = open_bench(estimator="mean")
    found = judged(bench, prepared(bench, 5), [0.25, 0.95], 5)
    np.testing.assert_allclose(found.value, [0.25, 0.95])
