"""The simulation of many workers, held to cases that can be worked out by hand."""

import numpy as np
import pytest

from benchmarks.scaling import WORKERS, barrier, draw, free, ordered, simulate

ONES = np.ones((3, 4))
"""Three generations of four candidates that take a second each."""


def test_even_times_are_shared_out_evenly() -> None:
    for mode in (barrier, free, ordered):
        assert mode(ONES, 1, 0.0, 0.0) == pytest.approx(12)
        assert mode(ONES, 2, 0.0, 0.0) == pytest.approx(6)
        assert mode(ONES, 4, 0.0, 0.0) == pytest.approx(3)
    # At a barrier eight workers find four candidates.
    assert barrier(ONES, 8, 0.0, 0.0) == pytest.approx(3)
    assert free(ONES, 8, 0.0, 0.0) == pytest.approx(2)


def test_a_barrier_waits_for_the_slowest_of_each_generation() -> None:
    times = np.array([[5.0, 1.0], [1.0, 5.0]])
    assert barrier(times, 2, 0.0, 0.0) == pytest.approx(10)
    assert free(times, 2, 0.0, 0.0) == pytest.approx(7)
    # The fourth candidate waits for nobody, the lag is four.
    assert ordered(times, 2, 0.0, 0.0) == pytest.approx(7)
    late = np.array([[9.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    # The fifth may start only when the first, which takes nine seconds, has been told.
    assert ordered(late, 2, 0.0, 0.0) == pytest.approx(10)
    assert free(late, 2, 0.0, 0.0) == pytest.approx(9)


def test_handing_out_limits_many_workers() -> None:
    times = np.full((1, 100), 1.0)
    assert barrier(times, 100, 0.1, 2.0) == pytest.approx(100 * 0.1 + 1.0 + 2.0)


def test_a_record_for_each_setting_and_a_picture() -> None:
    rows = list(simulate(np.log([1.0, 2.0]), [4, 8], 2, 0.0, 0.0))
    assert len(rows) == 2 * 3 * len(WORKERS)
    assert all(0 < row["busy"] <= 1 + 1e-9 for row in rows)
    assert draw(rows).startswith("<svg")
