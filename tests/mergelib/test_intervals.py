"""Intervals against published examples, closed forms, enumeration and simulated coverage."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit

from mergelib.errors import InputError
from mergelib.intervals import mean_score, normal_mixture_quantile, paired_difference, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (81, 263)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_scipys(k, n, level):
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    found = wilson(k, n, level)
    assert found.value == k / n
    assert found.low == pytest.approx(expected.low)
    assert found.high == pytest.approx(expected.high)


def test_wilson_published_example():
    # Newcombe, 1998, Statistics in Medicine 17:857, table I: 81 of 263
    np.testing.assert_allclose(wilson(81, 263)[1:], [0.2553, 0.3662], atol=5e-5)


def test_wilson_of_a_finite_population_at_the_edges():
    found = wilson(np.array([0, 3, 0]), np.array([0, 10, 9]), population=10)
    assert np.isnan(found.value[0])
    assert np.isnan(found.low[0])
    assert found.low[1] == found.value[1] == found.high[1] == 0.3
    assert found.low[2] == 0
    assert found.high[2] <= 0.1 + 1e-12  # one item unseen


@pytest.mark.parametrize(("population", "n", "right"), [(30, 10, 12), (200, 30, 150), (50, 40, 30)])
def test_wilson_of_a_finite_population_covers_all_samples_of_it(population, n, right):
    # Exact coverage: every number right in the sample, by its hypergeometric probability.
    k = np.arange(n + 1)
    chance = stats.hypergeom.pmf(k, population, right, n)
    possible = chance > 0
    found = wilson(k[possible], n, population=population)
    share = right / population
    covered = (found.low <= share + 1e-12) & (share <= found.high + 1e-12)
    assert chance[possible][covered].sum() > 0.93


def test_paired_difference_published_example():
    # Fagerland, Lydersen & Laake, 2014, Statistics in Medicine 33:2850, airway reactivity before
    # and after transplantation (Bentur et al., 2009): 1 both, 1, 7, 12 neither; Newcombe's
    # square-and-add interval is -.507 to -.026.
    before = np.repeat([1, 1, 0, 0], [1, 1, 7, 12])
    after = np.repeat([1, 0, 1, 0], [1, 1, 7, 12])
    found = paired_difference(before, after)
    assert found.value == pytest.approx(-6 / 21)
    assert found.low == pytest.approx(-0.507, abs=5e-4)
    assert found.high == pytest.approx(-0.026, abs=5e-4)


def newcombe_by_hand(a, b):
    """Method 10, written out for one pair of lists."""
    n = len(a)
    e, f, g, h = (
        sum(x == s and y == t for x, y in zip(a, b, strict=True))
        for s, t in ((1, 1), (1, 0), (0, 1), (0, 0))
    )
    one, two = ((e + f) / n), ((e + g) / n)
    low_one, high_one = stats.binomtest(e + f, n).proportion_ci(0.95, "wilson")
    low_two, high_two = stats.binomtest(e + g, n).proportion_ci(0.95, "wilson")
    product = (e + f) * (g + h) * (e + g) * (f + h)
    top = e * h - f * g
    top = max(top - n / 2, 0) if top > 0 else top
    phi = top / product**0.5 if product else 0
    down, up = one - low_one, high_two - two
    delta = (down**2 - 2 * phi * down * up + up**2) ** 0.5
    up, down = high_one - one, two - low_two
    epsilon = (up**2 - 2 * phi * up * down + down**2) ** 0.5
    return one - two - delta, one - two + epsilon


def test_paired_difference_is_the_formula_for_every_outcome_of_five_items():
    outcomes = np.array(list(itertools.product([0.0, 1.0], repeat=5)))
    found = paired_difference(outcomes[:, None], outcomes[None])
    assert found.value.shape == (32, 32)
    for i, j in itertools.product(range(32), repeat=2):
        expected = newcombe_by_hand(outcomes[i], outcomes[j])
        np.testing.assert_allclose([found.low[i, j], found.high[i, j]], expected, atol=1e-9)


def test_paired_difference_covers():
    rng = np.random.default_rng(0)
    level = rng.normal(0.4, 1.2, (4000, 50))  # items shared by both models: paired
    a = rng.random(level.shape) < expit(level + 0.4)
    b = rng.random(level.shape) < expit(level)
    truth = stats.norm(0.4, 1.2).expect(lambda x: expit(x + 0.4) - expit(x))
    found = paired_difference(a, b)
    covered = np.mean((found.low <= truth) & (truth <= found.high))
    assert covered == pytest.approx(0.95, abs=0.02)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.sampled_from([0.0, 1.0, np.nan])),
        min_size=1,
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_paired_difference_turns_with_its_sides_and_not_with_the_order(pairs, random):
    a, b = np.array(pairs).T
    found, turned = paired_difference(a, b), paired_difference(b, a)
    np.testing.assert_allclose([found.low, found.high], [-turned.high, -turned.low], atol=1e-12)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    np.testing.assert_allclose(paired_difference(*np.array(shuffled).T), found, atol=1e-12)
    kept = np.array([pair for pair in pairs if not np.isnan(pair).any()])
    if len(kept):
        np.testing.assert_allclose(paired_difference(*kept.T), found, atol=1e-12)
    else:
        assert np.isnan(found).all()


def test_other_scores_get_students_interval():
    rng = np.random.default_rng(1)
    a, b = rng.random(12), rng.random(12)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    a_nan, b_nan = np.append(a, [np.nan, 0.3]), np.append(b, [0.5, np.nan])
    found = paired_difference(a_nan, b_nan)
    assert found.value == pytest.approx((a - b).mean())
    np.testing.assert_allclose([found.low, found.high], expected)
    assert np.isnan(paired_difference([0.5], [0.2]).low)


def test_mixture_quantile_is_the_root_of_the_mixtures_cdf():
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.ones(6), 4)
    means, sds = rng.random((4, 6)), 0.05 + rng.random((4, 6))
    for probability in (0.025, 0.5, 0.975):
        found = normal_mixture_quantile(weights, means, sds, probability)
        cdf = (weights * stats.norm.cdf(found[:, None], means, sds)).sum(1)
        np.testing.assert_allclose(cdf, probability, atol=1e-7)
    point = normal_mixture_quantile(np.ones((1, 1)), np.full((1, 1), 0.4), np.zeros((1, 1)), 0.9)
    assert point == pytest.approx(0.4)


def test_mixture_quantile_of_hard_cases():
    # parts far narrower than the gaps between them, no cases, and NaN beside a number
    weights, means = np.array([[0.3, 0.7], [np.nan, 1.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    found = normal_mixture_quantile(weights, means, np.full((2, 2), 1e-9), 0.65)
    assert found[0] == pytest.approx(1.0, abs=1e-6)
    assert np.isnan(found[1])
    assert normal_mixture_quantile(*[np.empty((0, 3))] * 3, 0.5).shape == (0,)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="level: 95"):
        wilson(1, 2, level=95)
    with pytest.raises(InputError, match="successes"):
        wilson(3, 2)
    with pytest.raises(InputError, match="3 items scored of 2"):
        wilson(1, 3, population=2)
    with pytest.raises(InputError, match="shapes"):
        paired_difference([1, 0], [1, 0, 1])


@pytest.mark.parametrize("shape", [(12,), (3, 40)])
def test_a_mean_of_right_and_wrong_is_wilsons(shape):
    scores = (np.random.default_rng(3).random(shape) < 0.3).astype(float)
    scores[..., 4] = np.nan
    found = mean_score(scores)
    expected = wilson(np.nansum(scores, axis=-1), shape[-1] - 1)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_mean_of_scores_is_wilsons_at_the_effective_number():
    scores = np.array([0.2, 0.9, 0.4, 0.4, 1.0, 0.7, np.nan])
    y = scores[:6]
    m = y.mean()
    variance = (((y - m) ** 2).sum() + 2 * m * (1 - m)) / 8
    effective = 6 * m * (1 - m) / variance
    z = stats.norm.ppf(0.975)
    centre = (m + z**2 / (2 * effective)) / (1 + z**2 / effective)
    root = np.sqrt(m * (1 - m) / effective + z**2 / (4 * effective**2))
    found = mean_score(scores)
    assert found.value == pytest.approx(m)
    assert found.low == pytest.approx(centre - z * root / (1 + z**2 / effective))
    assert found.high == pytest.approx(centre + z * root / (1 + z**2 / effective))


def test_means_that_are_alike_or_missing():
    found = mean_score([[0.5] * 20, [np.nan] * 20, [0.0] * 20, [1.0] * 20])
    assert found.low[0] < 0.5 < found.high[0]
    assert found.high[0] - found.low[0] < 0.2
    assert np.isnan([each[1] for each in found]).all()
    assert (found.low[2], found.high[3]) == (0.0, 1.0)
    assert found.high[2] == pytest.approx(wilson(0, 20).high)


@pytest.mark.parametrize("n", [30, 100, 500])
@pytest.mark.parametrize("kind", ["skewed", "F1", "rare", "uniform"])
def test_means_of_scores_are_covered(kind, n):
    rng = np.random.default_rng(4)
    u = rng.random((3000, n))
    scores, mean = {
        "skewed": lambda: (rng.beta(0.3, 5, u.shape), 0.3 / 5.3),
        "F1": lambda: (np.where(u < 0.4, 0.0, np.where(u > 0.8, 1.0, rng.random(u.shape))), 0.4),
        "rare": lambda: (np.where(u < 0.9, 0.0, rng.random(u.shape)), 0.05),
        "uniform": lambda: (u, 0.5),
    }[kind]()
    found = mean_score(scores)
    covered = np.mean((found.low <= mean) & (mean <= found.high))
    # Standard error .004. Student's t falls to .84 with 30 scores of which few are not 0.
    assert (0.93 if n > 30 else 0.9) < covered < 0.98
    t = stats.ttest_1samp(scores, mean, axis=1).pvalue
    assert covered > np.nanmean(t > 0.05) - 0.01
    assert np.all((found.low >= 0) & (found.high <= 1))


def test_scores_outside_0_to_1_are_refused():
    with pytest.raises(InputError, match="outside 0 to 1"):
        mean_score([0.2, 1.2])
