"""The choice of items: sizes, chances, strata, reproducibility."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergelib.errors import InputError
from mergelib.irt.bank import ItemBank
from mergelib.irt.selection import (
    SELECTIONS,
    SelectionContext,
    easiness,
    nested,
    select,
    select_weighted,
)

ITEMS = 40


def make_context(pool=None):
    rng = np.random.default_rng(0)
    bank = ItemBank(
        tuple(map(str, range(ITEMS))),
        np.ones(ITEMS),
        rng.normal(0, 1.5, ITEMS),
        np.zeros(ITEMS),
        np.zeros(ITEMS),
    )
    calibration = (rng.random((25, ITEMS)) < rng.random(ITEMS)).astype(float)
    calibration[:, 7] = np.nan
    calibration[rng.random(calibration.shape) < 0.3] = np.nan
    endpoints = (rng.random((2, ITEMS)) < 0.6).astype(float)
    return SelectionContext(bank, calibration, endpoints, pool)


@given(
    strategy=st.sampled_from(sorted(SELECTIONS)),
    n=st.integers(1, 25),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_sorted_distinct_within_the_pool_and_reproducible(strategy, n, seed):
    pool = np.arange(3, 28)
    context = make_context(pool)
    chosen = select(strategy, n, context, np.random.default_rng(seed))
    assert chosen.shape == (n,)
    assert np.all(np.diff(chosen) > 0)
    assert set(chosen) <= set(pool)
    np.testing.assert_array_equal(chosen, select(strategy, n, context, np.random.default_rng(seed)))


@pytest.mark.parametrize("strategy", ["random", "stratified", "systematic"])
def test_every_item_has_the_same_chance(strategy):
    context, rng, draws = make_context(), np.random.default_rng(1), 3000
    counts = np.zeros(ITEMS)
    for _ in range(draws):
        counts[select(strategy, 11, context, rng)] += 1
    share = 11 / ITEMS
    spread = np.sqrt(share * (1 - share) / draws)
    assert np.max(np.abs(counts / draws - share)) < 4.5 * spread


def test_systematic_takes_each_stretch_of_easiness():
    context = SelectionContext(make_context().bank)  # no ties
    rank = np.argsort(np.argsort(-easiness(context)))
    for seed in range(20):
        chosen = select("systematic", 8, context, np.random.default_rng(seed))
        assert sorted(rank[chosen] // 5) == list(range(8))


def test_systematic_lowers_the_error_of_the_mean():
    context, rng = make_context(), np.random.default_rng(2)
    easy = easiness(context)
    error = {
        strategy: np.std([easy[select(strategy, 8, context, rng)].mean() for _ in range(300)])
        for strategy in ("random", "systematic")
    }
    assert error["systematic"] < 0.4 * error["random"]


def test_stratified_takes_each_pattern_in_proportion():
    context = make_context()
    pattern = context.endpoint_responses[0] * 2 + context.endpoint_responses[1]
    for seed in range(20):
        chosen = select("stratified", 12, context, np.random.default_rng(seed))
        for value in np.unique(pattern):
            expected = 12 * np.mean(pattern == value)
            assert abs(np.sum(pattern[chosen] == value) - expected) < 1 + 1e-9


def test_easiness_is_the_share_right_and_the_bank_fills_in():
    context = make_context()
    found = easiness(context)
    seen = np.arange(ITEMS) != 7
    np.testing.assert_allclose(
        found[seen], np.nanmean(context.calibration_responses[:, seen], axis=0)
    )
    gamma = np.random.default_rng(3).standard_normal(200_000)
    simulated = context.bank.probability(gamma)[:, 7].mean()
    assert found[7] == pytest.approx(simulated, abs=2e-3)
    assert easiness(SelectionContext(context.bank)).shape == (ITEMS,)


@pytest.mark.parametrize("strategy", sorted(SELECTIONS))
def test_sets_are_nested_and_reproducible(strategy):
    context, sizes = make_context(np.arange(2, 35)), (3, 8, 20)
    sets = nested(strategy, sizes, context, np.random.default_rng(4))
    assert [len(chosen.items) for chosen in sets] == list(sizes)
    for small, large in zip(sets, sets[1:], strict=False):
        assert set(small.items) < set(large.items)
    assert set(sets[-1].items) <= set(context.pool)
    again = nested(strategy, sizes, context, np.random.default_rng(4))
    for one, other in zip(sets, again, strict=True):
        np.testing.assert_array_equal(one.items, other.items)
        np.testing.assert_array_equal(one.weights, other.weights)


def test_nested_informative_items_are_those_chosen_alone():
    context, rng = make_context(), np.random.default_rng(5)
    for chosen in nested("informative", (2, 5, 11), context, rng):
        alone = select("informative", len(chosen.items), context, rng)
        np.testing.assert_array_equal(chosen.items, alone)


def test_weights_are_shares_of_all_items_where_there_are_any():
    context, rng = make_context(), np.random.default_rng(6)
    chosen = select_weighted("clustered", 9, context, rng)
    assert chosen.weights.shape == (ITEMS,)
    assert chosen.weights.sum() == pytest.approx(1)
    assert set(np.flatnonzero(chosen.weights)) <= set(chosen.items)
    for strategy in sorted(set(SELECTIONS) - {"clustered"}):
        assert select_weighted(strategy, 9, context, rng).weights is None


def test_a_bank_of_several_abilities_will_do():
    context, random = make_context(), np.random.default_rng(8)
    alpha = random.normal(0, 1, (ITEMS, 2))
    bank = replace(context.bank, discrimination=alpha, discrimination_se=np.zeros((ITEMS, 2)))
    context = replace(context, bank=bank)
    simulated = bank.probability(random.standard_normal((200_000, 2)))[:, 7].mean()
    assert easiness(context)[7] == pytest.approx(simulated, abs=3e-3)
    for strategy in sorted(SELECTIONS):
        assert len(select(strategy, 6, context, random)) == 6


def test_the_level_is_the_best_endpoints_unless_said():
    context = make_context()
    best = float(context.endpoint_responses.mean(1).max())
    told = replace(context, level=best)
    chosen = [select("informative", 8, c, np.random.default_rng(7)) for c in (context, told)]
    np.testing.assert_array_equal(*chosen)


def test_bad_requests_are_refused():
    context, rng = make_context(), np.random.default_rng(0)
    with pytest.raises(InputError, match="41 items asked of a pool of 40"):
        select("random", 41, context, rng)
    with pytest.raises(InputError, match="6 items asked of a pool of 5"):
        select("random", 6, make_context(np.arange(5)), rng)
    with pytest.raises(InputError, match="ask for 1 to"):
        select("random", 0, context, rng)
    with pytest.raises(InputError, match="did you mean 'systematic'"):
        select("systematik", 3, context, rng)
    with pytest.raises(InputError, match="outside 0 to 39"):
        select("random", 1, make_context(np.array([40])), rng)
    with pytest.raises(InputError, match="endpoints' responses"):
        select("stratified", 3, SelectionContext(context.bank), rng)
    with pytest.raises(InputError, match="'informative' needs calibration responses"):
        select("informative", 3, SelectionContext(context.bank), rng)
    alone = replace(context, calibration_responses=context.calibration_responses[:1])
    with pytest.raises(InputError, match="at least 2 calibration models, not 1"):
        select("informative", 3, alone, rng)
    with pytest.raises(InputError, match=r"level 1\.2 is no accuracy"):
        select("informative", 3, replace(context, level=1.2), rng)
    with pytest.raises(InputError, match=r"sizes \[3, 3\] do not rise"):
        nested("random", (3, 3), context, rng)
    with pytest.raises(InputError, match="calibration_responses of shape"):
        select("random", 3, SelectionContext(context.bank, np.zeros((2, 3))), rng)
