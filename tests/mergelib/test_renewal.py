"""Other anchor items for each generation."""

from typing import Any

import numpy as np
import pytest

from mergelib.errors import InputError
from mergelib.irt.bank import ItemBank
from mergelib.irt.selection import RANDOM_SELECTIONS, SelectionContext
from mergelib.renewal import period_of, renewed
from mergelib.search import Search, parse_search
from tests.conftest import small_search


def _search(**changes: Any) -> Search:
    content = small_search()
    generations = changes.pop("generations", 50)
    algorithm = changes.pop("algorithm", "bayesian")
    content["evolution"] |= {"algorithm": algorithm, "generations": generations}
    content["fitness"] |= changes
    return parse_search(content, "search.yaml")


@pytest.fixture
def context() -> SelectionContext:
    rng = np.random.default_rng(0)
    difficulty = rng.standard_normal(40)
    names, ones = tuple(f"item {n}" for n in range(40)), np.ones(40)
    bank = ItemBank(names, ones, difficulty, 0.1 * ones, 0.1 * ones)
    return SelectionContext(bank, endpoint_responses=(rng.random((2, 40)) < 0.5).astype(float))


@pytest.mark.parametrize("selection", RANDOM_SELECTIONS)
def test_each_period_has_other_items_and_none_that_is_reserved(
    selection: str, context: SelectionContext
) -> None:
    search = _search(selection=selection)
    reserved = [f"item {n}" for n in range(20)]
    periods = [renewed(search, period, context, reserved)[0] for period in range(1, 6)]
    for items in periods:
        assert len(set(items)) == 10
        assert not set(items) & set(reserved)
        assert items == sorted(items, key=context.bank.items.index)
    # Of 20 items, every other one by difficulty, there are only two sets.
    assert len({tuple(items) for items in periods}) >= 2
    assert renewed(search, 3, context, reserved) == [periods[2]]
    assert renewed(_search(selection=selection), 3, context, reserved) == [periods[2]]


def test_systematic_items_are_as_hard_as_the_benchmark(context: SelectionContext) -> None:
    difficulty = dict(zip(context.bank.items, context.bank.difficulty, strict=True))
    means = {
        selection: [
            np.mean([difficulty[item] for item in renewed(search, period, context, [])[0]])
            for period in range(1, 40)
        ]
        for selection in ("systematic", "random")
        for search in [_search(selection=selection)]
    }
    assert np.mean(means["systematic"]) == pytest.approx(context.bank.difficulty.mean(), abs=0.1)
    assert np.std(means["systematic"]) < 0.8 * np.std(means["random"])


def test_where_too_few_items_are_left_all_are_asked(context: SelectionContext) -> None:
    reserved = [f"item {n}" for n in range(35)]
    assert len(renewed(_search(), 1, context, reserved)[0]) == 10
    assert len(renewed(_search(items=200), 1, context, [])[0]) == 40


@pytest.mark.parametrize("selection", RANDOM_SELECTIONS)
def test_in_a_race_they_are_asked_rung_by_rung(selection: str, context: SelectionContext) -> None:
    rungs = renewed(_search(selection=selection, racing=True), 1, context, [])
    assert list(map(len, rungs)) == [2, 3, 5]
    assert len(set(sum(rungs, []))) == 10
    for items in rungs:
        assert items == sorted(items, key=context.bank.items.index)
    # The race changes how they are asked and not which they are.
    (all_at_once,) = renewed(_search(selection=selection), 1, context, [])
    assert set(sum(rungs, [])) == set(all_at_once)


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ({}, 1),
        ({"generations": 49}, 0),
        ({"generations": 49, "renew": 1}, 1),
        ({"algorithm": "random"}, 1),
        ({"renew": 4}, 4),
        ({"renew": 0}, 0),
        ({"algorithm": "cma_es"}, 0),
        ({"algorithm": "cma_es", "renew": 2}, 2),
        ({"racing": True}, 1),
        ({"racing": True, "generations": 4}, 1),
        ({"racing": True, "generations": 4, "renew": 0}, 0),
        ({"racing": True, "generations": 4, "estimator": "mean"}, 0),
        ({"racing": True, "generations": 4, "calibration": {"dimensions": 2}}, 0),
        ({"racing": True, "algorithm": "cma_es"}, 0),
        ({"selection": "informative"}, 0),
        ({"estimator": "full"}, 0),
    ],
)
def test_after_how_many_generations(changes: dict[str, Any], after: int) -> None:
    search = _search(**changes)
    assert search.renewal == after
    periods = [period_of(search, generation) for generation in (0, 1, 7)]
    assert periods == ([0, 1 // after, 7 // after] if after else [0, 0, 0])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"racing": True, "algorithm": "ga"}, "a race holds its best to the incumbent"),
        ({"selection": "clustered"}, "clustered chooses the same items each time"),
        ({"algorithm": "natural_niches"}, "natural_niches compares candidates item by item"),
    ],
)
def test_what_needs_the_same_items_throughout_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=rf"fitness\.renew: 1, but .*{why}.*; give renew: 0"):
        _search(renew=1, **changes)
    assert _search(renew=0, **changes).renewal == 0


def test_a_search_that_is_extended_goes_on_as_it_began() -> None:
    short, long = _search(generations=49), _search(generations=50)
    assert short.settled().fitness.renew == 0
    assert long.settled().fitness.renew == 1
    assert long.settled(short.settled()).fitness.renew == 0
    assert long.settled(short).fitness.renew == 0
    assert _search(renew=3).settled(short).fitness.renew == 3
