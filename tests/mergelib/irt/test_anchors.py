"""Clustered and informative items against brute force and on simulated siblings."""

import numpy as np
import pytest

from mergelib.errors import InputError
from mergelib.irt.anchors import clustered_anchors, filled, informative_items, near_level
from mergelib.irt.bank import ItemBank, calibrate
from mergelib.irt.selection import SelectionContext, select


def bank_of(alpha, beta):
    count = len(alpha)
    zeros = np.zeros(count)
    return ItemBank(tuple(map(str, range(count))), alpha, beta, zeros, zeros)


def test_anchors_of_plain_clusters_are_their_middles_with_their_shares():
    offsets = np.array([-0.1, 0.0, 0.1])
    alpha = np.concatenate([1 + offsets, 3 + offsets, [5.0, 5.0, 5.0, 5.0]])
    beta = np.repeat([-2.0, 0.0, 2.0], [3, 3, 4])
    beta[6:] += [-0.2, 0.01, 0.1, 0.2]
    for seed in range(5):
        anchors = clustered_anchors(
            bank_of(alpha, beta), 3, np.arange(10), np.random.default_rng(seed)
        )
        order = np.argsort(anchors.items)
        np.testing.assert_array_equal(anchors.items[order], [1, 4, 7])
        np.testing.assert_allclose(anchors.weights[order], [0.3, 0.3, 0.4])


@pytest.mark.filterwarnings("error")
def test_anchors_are_distinct_in_the_pool_even_when_items_are_alike():
    bank = bank_of(np.ones(12), np.repeat([0.0, 1.0], 6))
    pool = np.array([0, 3, 5, 7, 9, 11])
    for n in (1, 4, 6):
        anchors = clustered_anchors(bank, n, pool, np.random.default_rng(0))
        assert len(set(anchors.items)) == n
        assert set(anchors.items) <= set(pool)
        assert anchors.weights.sum() == pytest.approx(1)


def test_weighted_anchors_estimate_better_than_random_items():
    random = np.random.default_rng(1)
    bank = bank_of(np.exp(random.normal(0.2, 0.4, 300)), random.normal(0, 1.5, 300))
    p = bank.probability(np.linspace(-2, 2, 41))
    error = {"clustered": [], "random": []}
    for seed in range(20):
        anchors = clustered_anchors(bank, 20, np.arange(300), np.random.default_rng(seed))
        error["clustered"].append(p[:, anchors.items] @ anchors.weights - p.mean(1))
        some = random.choice(300, 20, replace=False)
        error["random"].append(p[:, some].mean(1) - p.mean(1))
    rms = {name: np.sqrt(np.mean(np.square(gaps))) for name, gaps in error.items()}
    assert rms["clustered"] < 0.25 * rms["random"]


def test_greedy_steps_are_those_of_brute_force():
    random = np.random.default_rng(2)
    responses = (random.random((40, 15)) < random.random((40, 1))).astype(float)
    covariance = np.cov(responses.T) + 0.1 * np.eye(15)
    target = np.cov(responses.T).mean(1)  # of each item with accuracy

    def explained(chosen):
        part = covariance[np.ix_(chosen, chosen)]
        return target[chosen] @ np.linalg.solve(part, target[chosen])

    expected = []
    for _ in range(6):
        rest = [i for i in range(15) if i not in expected]
        expected.append(max(rest, key=lambda i: explained([*expected, i])))
    np.testing.assert_array_equal(informative_items(responses, 6, np.arange(15)), expected)


def test_models_all_alike_leave_the_order_of_the_pool():
    pool = np.array([3, 1, 4, 2])
    np.testing.assert_array_equal(informative_items(np.ones((5, 6)), 3, pool), pool[:3])


def test_unseen_cells_are_filled_and_models_near_the_level_taken():
    random = np.random.default_rng(3)
    gamma, bank = random.normal(size=200), bank_of(np.ones(60), random.normal(0, 1, 60))
    p = bank.probability(gamma)
    full = (random.random(p.shape) < p).astype(float)
    holes = np.where(random.random(p.shape) < 0.7, np.nan, full)
    holes[0] = np.nan
    complete = filled(holes, bank)
    assert complete.shape == (199, 60)
    seen = ~np.isnan(holes[1:])
    np.testing.assert_array_equal(complete[seen], holes[1:][seen])
    assert np.corrcoef(complete.mean(1), full[1:].mean(1))[0, 1] > 0.85
    near = near_level(complete, 0.5, fewest=5)
    assert np.all(np.abs(near.mean(1) - 0.5) <= 0.08)
    assert len(near_level(complete, 1.0, fewest=50)) >= 50
    assert len(near_level(complete, 0.0, fewest=500)) == 199
    with pytest.raises(InputError, match="at least 2 calibration models, not 1"):
        near_level(complete[:1], 0.5)


def test_informative_items_halve_the_regret_among_siblings():
    random = np.random.default_rng(4)
    items = 400
    alpha, beta = np.exp(random.normal(0, 0.8, items)), random.normal(0, 2, items)
    truth = bank_of(alpha, beta)

    def answers(gamma):
        p = truth.probability(gamma)
        return (random.random(p.shape) < p).astype(float)

    calibration = answers(random.normal(0, 1, 150))
    context = SelectionContext(calibrate(calibration, truth.items).bank, calibration, level=0.55)
    regret = {"random": [], "informative": []}
    for _ in range(300):
        responses = answers(random.normal(0.3, 0.15, 12))
        accuracy = responses.mean(1)
        for strategy, regrets in regret.items():
            asked = responses[:, select(strategy, 20, context, random)].mean(1)
            regrets.append(accuracy.max() - accuracy[asked == asked.max()].mean())
    assert np.mean(regret["informative"]) < 0.55 * np.mean(regret["random"])
