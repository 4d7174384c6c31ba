"""The simulation of many workers, held to cases that can be worked out by hand."""

import numpy as np
import pytest

from benchmarks.scaling import MODES, WORKERS, ahead, draw, free, simulate

ONES = np.ones((3, 4))
"""Three generations of four candidates that take a second each."""


def test_even_times_are_shared_out_evenly() -> None:
    for mode in MODES.values():
        assert mode(ONES, 1, 0.0, 0.0) == pytest.approx(12)
        assert mode(ONES, 2, 0.0, 0.0) == pytest.approx(6)
        assert mode(ONES, 4, 0.0, 0.0) == pytest.approx(3)
    # At a generation's end eight workers find four candidates.
    assert ahead(ONES, 8, 0.0, 0.0, 0) == pytest.approx(3)
    assert ahead(ONES, 8, 0.0, 0.0, 1) == pytest.approx(2)
    assert free(ONES, 8, 0.0, 0.0) == pytest.approx(2)


def test_a_generation_waits_for_the_slowest_of_those_that_must_have_been_told() -> None:
    times = np.array([[5.0, 1.0], [1.0, 5.0], [1.0, 1.0]])
    assert ahead(times, 2, 0.0, 0.0, 0) == pytest.approx(11)
    # One worker has the two long ones, one after the other; the third generation waits for the
    # first, which ends at 5, when the fourth candidate begins as well.
    assert ahead(times, 2, 0.0, 0.0, 1) == pytest.approx(7)
    assert free(times, 2, 0.0, 0.0) == pytest.approx(7)
    late = np.array([[9.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    # The third generation may start only when the first, which takes nine seconds, has been told.
    assert ahead(late, 2, 0.0, 0.0, 1) == pytest.approx(10)
    assert ahead(late, 2, 0.0, 0.0, 2) == pytest.approx(9)
    assert free(late, 2, 0.0, 0.0) == pytest.approx(9)


def test_handing_out_limits_many_workers() -> None:
    times = np.full((1, 100), 1.0)
    assert ahead(times, 100, 0.1, 2.0, 0) == pytest.approx(100 * 0.1 + 1.0 + 2.0)


def test_a_record_for_each_setting_and_a_picture() -> None:
    rows = list(simulate(np.log([1.0, 2.0]), [4, 8], 2, 0.0, 0.0))
    assert len(rows) == 2 * len(MODES) * len(WORKERS)
    assert all(0 < row["busy"] <= 1 + 1e-9 for row in rows)
    assert draw(rows).startswith("<svg")
