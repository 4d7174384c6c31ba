"""Estimates smoothed over the genomes."""

import numpy as np
import pytest

from mergelib import smoothing


def smoothed(genomes: np.ndarray, fitness: np.ndarray) -> np.ndarray:
    """Each fitness resting on as many answers."""
    return smoothing.smoothed(genomes, fitness, np.full(len(genomes), 30))


def _landscape(seed: int, count: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Genomes, two true values for each, and what noise makes of them."""
    rng = np.random.default_rng(seed)
    x = rng.random((count, 4))
    true = np.stack([0.7 - 0.2 * ((x - at) ** 2).sum(axis=1) for at in (0.3, 0.6)], axis=1)
    return x, true, true + 0.08 * rng.standard_normal(true.shape)


def test_the_best_by_smoothed_values_are_better_than_the_luckiest() -> None:
    lucky, best = [], []
    for seed in range(20):
        x, true, told = _landscape(seed)
        lucky.append(true[np.argsort(-told[:, 0])[:5], 0].mean())
        best.append(true[np.argsort(-smoothed(x, told)[:, 0])[:5], 0].mean())
    assert np.mean(best) > np.mean(lucky) + 0.02
    assert np.mean(np.array(best) > lucky) > 0.9


def test_smoothed_values_are_closer_to_the_truth_in_each_objective() -> None:
    x, true, told = _landscape(0)
    error = np.abs(smoothed(x, told) - true).mean(axis=0)
    assert (error < 0.6 * np.abs(told - true).mean(axis=0)).all()


def test_values_without_noise_stay_as_they_are() -> None:
    x, true, _ = _landscape(1)
    np.testing.assert_allclose(smoothed(x, true), true, atol=5e-3)


def test_failed_candidates_stay_failed_and_do_not_count() -> None:
    x, _, told = _landscape(2)
    failed = told.copy()
    failed[::7, 1] = np.nan
    kept = np.isfinite(failed).all(axis=1)
    found = smoothed(x, failed)
    assert np.isnan(found[~kept]).all()
    np.testing.assert_array_equal(found[kept], smoothed(x[kept], told[kept]))
    assert np.isnan(smoothed(x, np.full_like(told, np.nan))).all()


def test_a_score_of_few_answers_counts_for_less() -> None:
    """Of two scores at one place the mean is drawn to the one that more answers are behind."""
    x, true, told = _landscape(4)
    both, wrong = np.vstack([x, x]), np.vstack([true, true + 0.3])
    answers = np.repeat([300.0, 3.0], len(x))
    found = smoothing.smoothed(both, wrong, answers)[: len(x)]
    assert np.abs(found - true).mean() < 0.03
    equal = smoothing.smoothed(both, wrong, np.full(len(both), 3.0))[: len(x)]
    np.testing.assert_allclose((equal - true).mean(), 0.15, atol=0.02)


def test_one_candidate_keeps_its_value() -> None:
    np.testing.assert_allclose(smoothed(np.array([[0.2, 0.3]]), np.array([[0.4]])), [[0.4]])


def test_of_many_candidates_some_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    x, true, told = _landscape(3, count=300)
    monkeypatch.setattr(smoothing, "FITTED", 100)
    error = np.abs(smoothed(x, told) - true).mean()
    assert error < 0.85 * np.abs(told - true).mean()


def _crowded(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A draw of a process, half of whose candidates lie next to the best that the others found."""
    rng = np.random.default_rng(seed)
    waves, phases, heights = (
        rng.standard_normal((300, 3)),
        rng.random(300),
        rng.standard_normal(300),
    )

    def true(x: np.ndarray) -> np.ndarray:
        values: np.ndarray = np.cos(2 * x @ waves.T + 2 * np.pi * phases) @ heights / np.sqrt(150)
        return values

    def told(x: np.ndarray) -> np.ndarray:
        return (true(x) + 0.5 * rng.standard_normal(len(x)))[:, None]

    first = rng.random((40, 3))
    y = told(first)
    best = first[np.argmax(smoothed(first, y)[:, 0])]
    crowd = np.clip(best + 0.01 * rng.standard_normal((40, 3)), 0, 1)
    x = np.vstack([first, crowd])
    return x, true(x), np.vstack([y, told(crowd)])


def test_a_closer_look_goes_to_others_than_the_neighbours_of_the_first() -> None:
    highest, best, elsewhere = [], [], []
    for seed in range(60):
        x, true, told = _crowded(seed)
        means = smoothed(x, told)[:, 0]
        chosen = smoothing.worth_a_look(x, told, np.full(len(x), 30.0), 5)
        assert chosen[0] == np.argmax(means)
        assert len(set(chosen)) == 5
        highest.append(true[np.argsort(-means)[:5]].max())
        best.append(true[chosen].max())
        elsewhere.append((np.array(chosen) < 40).sum())
    gains = np.array(best) - highest
    assert gains.mean() > 2 * gains.std() / np.sqrt(len(gains))
    assert np.mean(elsewhere) > 2


def test_where_nobody_may_be_better_the_highest_means_are_next() -> None:
    x, true, _ = _landscape(8, count=64)
    y = true[:, :1]
    chosen = smoothing.worth_a_look(x, y, np.full(64, 30.0), 10)
    ranks = np.argsort(np.argsort(-smoothed(x, y)[:, 0]))[chosen]
    assert ranks[0] == 0
    assert max(ranks) < 20


def test_a_closer_look_at_few_or_failed_candidates() -> None:
    x, _, told = _landscape(6, count=10)
    y, answers = told[:, :1].copy(), np.full(10, 30.0)
    y[[0, 9]] = np.nan
    assert sorted(smoothing.worth_a_look(x, y, answers, 20)) == list(range(1, 9))
    assert smoothing.worth_a_look(x, np.full_like(y, np.nan), answers, 5) == []
    same = np.full_like(y, 0.5)
    assert smoothing.worth_a_look(np.tile(x[:1], (10, 1)), same, answers, 1) == [9]


def test_a_closer_look_is_had_among_the_best_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, told = _landscape(7)
    monkeypatch.setattr(smoothing, "DRAWN", 10)
    chosen = smoothing.worth_a_look(x, told[:, :1], np.full(len(x), 30.0), 5)
    assert set(chosen) <= set(np.argsort(-smoothed(x, told[:, :1])[:, 0])[:10])
