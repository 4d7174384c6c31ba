"""The item bank calibrated again on candidates' responses, drawn from items that are known."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from mergelib.banks import bank_of
from mergelib.calibration import IntervalFit, all_asked, calibrate_banks, fit_intervals
from mergelib.evaluation import nothing_done
from mergelib.fitness import Judge
from mergelib.recalibration import reach, recalibrated, recalibrates
from mergelib.search import Search, parse_search
from mergelib.tables import Answered, responses_table
from mergelib.workbench import Workbench
from tests.conftest import small_search

NAME = "zoo_ja"
CANDIDATES = 120


def _search(**fitness: Any) -> Search:
    content = small_search()
    content["evolution"] |= {"algorithm": fitness.pop("algorithm", "bayesian")}
    content["fitness"] |= {"renew": 1, **fitness}
    return parse_search(content, "search.yaml")


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({}, True),
        ({"renew": 0}, False),
        ({"estimator": "mean"}, False),
        ({"estimator": "p_irt"}, False),
        ({"renew": 0, "estimator": "full"}, False),
        ({"calibration": {"source": "responses.parquet"}}, False),
        ({"algorithm": "cma_es"}, False),
    ],
)
def test_which_searches_calibrate_again(changes: dict[str, Any], again: bool) -> None:
    assert recalibrates(_search(**changes)) == again


def test_the_newest_thousand_candidates_are_enough() -> None:
    search = _search()
    assert reach(search, 0) == range(0)
    assert reach(search, 250) == range(250)
    assert reach(search, 300) == range(50, 300)


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench(_search(), None)


class _World:
    """Models whose answers follow from their abilities and the items' difficulties."""

    def __init__(self, bench: Workbench) -> None:
        self.items = all_asked(bench, "search")[NAME]
        self.random = np.random.default_rng(0)
        self.difficulty = self.random.normal(0.0, 8.0, len(self.items))

    def answers(self, model: str, ability: float, asked: NDArray[np.int64]) -> Answered:
        right = self.random.random(len(asked)) < expit(4.0 * ability - self.difficulty[asked])
        evaluation = nothing_done("ok", None)
        evaluation["responses"][NAME] = [[int(r), float(r), "", None] for r in right]
        evaluation["items"] = len(asked)
        return Answered(model, {NAME: [self.items[n] for n in asked]}, evaluation, False)

    def accuracy(self, ability: float) -> float:
        return float(expit(4.0 * ability - self.difficulty).mean())


@pytest.fixture(scope="module")
def world(bench: Workbench) -> _World:
    return _World(bench)


@pytest.fixture(scope="module")
def prepared(bench: Workbench, world: _World) -> pa.Table:
    everything = np.arange(len(world.items))
    models = [c.fingerprint for c in bench.checkpoints.values()]
    answers = [world.answers(m, a, everything) for m, a in zip(models, (-1.5, 0, 0.2), strict=True)]
    answers += [
        world.answers(f"merge {n}", world.random.normal(), world.random.permutation(everything)[:6])
        for n in range(6)
    ]
    return responses_table(answers)


@pytest.fixture(scope="module")
def before(bench: Workbench, prepared: pa.Table) -> tuple[pa.Table, dict[str, IntervalFit]]:
    banks = calibrate_banks(bench, prepared)
    return banks, fit_intervals(bench, banks, prepared)


@pytest.fixture(scope="module")
def abilities() -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(0.5, 0.5, CANDIDATES)


@pytest.fixture(scope="module")
def answered(world: _World, abilities: NDArray[np.float64]) -> pa.Table:
    items = np.arange(len(world.items))
    return responses_table(
        world.answers(f"candidate {n}", ability, world.random.permutation(items)[:10])
        for n, ability in enumerate(abilities)
    )


def test_candidates_responses_make_the_bank_and_the_estimates_better(
    bench: Workbench,
    world: _World,
    before: tuple[pa.Table, dict[str, IntervalFit]],
    prepared: pa.Table,
    abilities: NDArray[np.float64],
    answered: pa.Table,
) -> None:
    after = recalibrated(bench, *before, prepared, answered)
    assert after.names == {NAME}
    models = [f"candidate {n}" for n in range(CANDIDATES)]
    truth = np.array([world.accuracy(ability) for ability in abilities])
    errors, likenesses = [], []
    for banks, fits, names in ((*before, ()), after):
        likenesses.append(np.corrcoef(bank_of(banks, NAME).difficulty, world.difficulty)[0, 1])
        judge = Judge(bench.search, bench, banks, prepared, fits, names)
        estimates = judge.estimate(answered, models, beyond_anchors=True)[NAME]
        errors.append(np.sqrt(np.mean((estimates.value - truth) ** 2)))
        inside = (estimates.low <= truth) & (truth <= estimates.high)
    assert likenesses[1] > likenesses[0] + 0.02
    assert errors[1] < 0.95 * errors[0]
    assert inside.mean() > 0.9


def test_what_was_chosen_and_measured_while_preparing_stays(
    bench: Workbench,
    before: tuple[pa.Table, dict[str, IntervalFit]],
    prepared: pa.Table,
    answered: pa.Table,
) -> None:
    banks, fits, _ = recalibrated(bench, *before, prepared, answered)
    assert banks.schema == before[0].schema
    for column in ("benchmark", "item_id", "anchor", "weight", "rung", "threshold"):
        assert banks[column] == before[0][column]
    assert banks["difficulty"] != before[0]["difficulty"]
    assert fits[NAME]["shift"] != before[1][NAME]["shift"]
    assert fits[NAME]["widening"] == before[1][NAME]["widening"]


def test_a_bank_of_several_abilities_stays_as_it_is(prepared: pa.Table, answered: pa.Table) -> None:
    calibration = {"models": 3, "share": 0.5, "dimensions": 2}
    bench = Workbench(_search(calibration=calibration), None)
    banks = calibrate_banks(bench, prepared)
    fits = fit_intervals(bench, banks, prepared)
    after = recalibrated(bench, banks, fits, prepared, answered)
    assert after.banks.equals(banks)
    assert after.fits == fits
    assert not after.names
