import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergelib.racing import behind, comparable, ranks, rung_sizes, survivors
from mergelib.search import parse_search
from mergelib.sections.fitness import Racing
from tests.conftest import small_search

NAN = float("nan")


@given(items=st.integers(1, 500), rungs=st.integers(2, 6), keep=st.floats(0.1, 0.9))
def test_rungs_rise_to_all_items(items, rungs, keep):
    sizes = rung_sizes(items, Racing(rungs=rungs, keep=keep))
    assert sizes[-1] == items
    assert all(a < b for a, b in zip(sizes, sizes[1:], strict=False))
    assert sizes[0] >= 1
    assert len(sizes) <= rungs


def test_halving_asks_a_quarter_a_half_and_all():
    assert rung_sizes(30, Racing()) == [7, 15, 30]
    assert rung_sizes(30, None) == [30]


@given(items=st.integers(4, 500), population=st.integers(1, 20).map(lambda n: 4 * n))
def test_a_race_of_three_halves_costs_at_most_half(items, population):
    asked, before = 0, 0
    for racers, size in zip(
        (population, population // 2, population // 4), rung_sizes(items, Racing()), strict=True
    ):
        asked += racers * (size - before)
        before = size
    assert 0.25 * items * population < asked <= 0.5 * items * population


def test_the_better_share_goes_on_and_the_failed_never():
    fitness = np.array([[0.1], [NAN], [0.7], [0.4], [0.4]])
    assert survivors(fitness, 0.5) == [2, 3, 4]
    assert survivors(fitness, 0.2) == [2]
    assert survivors(fitness, 0.9) == [0, 2, 3, 4]
    assert survivors(np.array([[NAN], [NAN]]), 0.5) == []


def test_trade_offs_go_on_before_what_they_dominate():
    fitness = np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [NAN, 1.0], [0.05, 0.05]])
    assert ranks(fitness)[:2] in ([1, 2], [2, 1])
    assert ranks(fitness)[2:] == [0, 4, 3]


def test_the_best_is_sought_among_those_that_got_to_the_end_of_a_race():
    rows = [
        (0, 7, "ok"),
        (0, 30, "ok"),
        (0, 45, "failed"),
        (1, 15, "ok"),
        (1, 15, "ok"),
        (1, 7, "ok"),
    ]
    table = pa.table(
        dict(zip(("generation", "items", "status"), zip(*rows, strict=True), strict=True))
    )
    race, ranked = _search("bayesian", racing=True), _search("ga", racing=True)
    assert comparable(race, table).tolist() == [False, True, False, True, True, False]
    assert comparable(race, table.slice(2, 1)).tolist() == [False]
    for search in (ranked, _search("bayesian")):
        assert comparable(search, table).tolist() == [True, True, False, True, True, True]


def _search(algorithm, **fitness):
    content = small_search()
    content["evolution"] |= {"algorithm": algorithm}
    content["fitness"] |= fitness
    return parse_search(content, "search.yaml")


def test_who_was_dropped_is_not_ahead_of_those_who_went_on():
    fitness = np.array([[0.9], [0.5], [0.3], [NAN]])
    assert behind(fitness, [0, 3])[:3, 0].tolist() == [0.3, 0.5, 0.3]
    assert behind(fitness, []) is fitness
    everybody = np.array([[0.9], [NAN]])
    assert behind(everybody, [0])[0, 0] == pytest.approx(0.9)
