from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergelib.genes import Gene


def _stepped(low: float, step: float, levels: int, *, whole: bool = False) -> Gene:
    return Gene("p", None, None, 0, low, low + step * (levels - 1), step, whole)


@given(
    low=st.floats(-5, 5).map(lambda x: round(x, 3)),
    step=st.sampled_from([0.05, 0.1, 0.25, 1.0, 3.0]),
    levels=st.integers(2, 40),
    position=st.floats(0, 1),
)
def test_a_stepped_value_is_a_whole_number_of_steps_and_comes_back(low, step, levels, position):
    gene = _stepped(low, step, levels)
    value = gene.value(position)
    steps = (value - low) / step
    assert abs(steps - round(steps)) < 1e-4
    assert gene.low <= value <= gene.high
    assert gene.value(gene.position(value)) == value


def test_each_value_has_an_equal_share_the_ends_too():
    gene = _stepped(2, 1, 5, whole=True)
    counts = Counter(gene.value(p) for p in np.linspace(0, 1, 100_001))
    assert set(counts) == {2, 3, 4, 5, 6}
    assert all(isinstance(value, int) for value in counts)
    assert max(counts.values()) - min(counts.values()) <= 2


@pytest.mark.parametrize(("position", "value"), [(0.0, -1.0), (0.5, 0.5), (1.0, 2.0)])
def test_without_a_step_every_value_is_reached(position, value):
    gene = Gene("p", None, None, 0, -1.0, 2.0)
    assert gene.value(position) == value
    assert gene.position(value) == position
    assert gene.position(value + 100) == 1
