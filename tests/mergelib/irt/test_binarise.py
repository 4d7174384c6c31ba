"""Binarisation against brute force over many thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergelib.errors import InputError
from mergelib.irt.binarise import binarised, threshold

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(scores=SCORES)
def test_no_other_threshold_keeps_the_mean_better(scores):
    y = np.array(scores)
    c = threshold(y)
    assert 0 < c < 1
    gap = abs(np.mean(y > c) - y.mean())
    for other in (*np.linspace(0, 1, 101), *(y - 1e-12), *(y + 1e-12)):
        assert gap <= abs(np.mean(y > other) - y.mean()) + 1e-9


@given(scores=SCORES)
def test_a_binarised_score_stays(scores):
    y = np.append(np.array(scores), np.nan)
    once = binarised(y, threshold(y))
    assert set(once[:-1]) <= {0.0, 1.0}
    assert np.isnan(once[-1])
    assert threshold(once) == 0.5
    np.testing.assert_array_equal(binarised(once, 0.5), once)


def test_a_hand_worked_case():
    y = np.array([[0.1, 0.2], [0.8, np.nan], [0.3, 0.6]])  # mean .4: two of five
    assert threshold(y) == pytest.approx(0.45)
    np.testing.assert_array_equal(binarised(y, 0.45), [[0, 0], [1, np.nan], [0, 1]])


@pytest.mark.parametrize("value", [0.0, 0.3, 0.8, 1.0])
def test_all_the_same(value):
    c = threshold(np.full(4, value))
    assert np.all(binarised(np.full(4, value), c) == (value >= 0.5))


def test_what_is_refused():
    with pytest.raises(InputError, match="every one is NaN"):
        threshold(np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="every one is NaN"):
        threshold(np.empty((0, 3)))
    with pytest.raises(InputError, match="1.5 is outside 0 to 1"):
        threshold(np.array([0.1, 1.5]))
    with pytest.raises(InputError, match="-1 is outside 0 to 1"):
        binarised(np.array([0.1, -1]), 0.5)
