import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mergelib.evolution.front import hypervolume, knee, non_dominated, ranks, spread

# Few different values, so that ties, duplicates and failed rows are common.
grid = st.sampled_from([0.0, 0.25, 0.5, 1.0, np.nan])
shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)
score_tables = st.one_of(
    arrays(np.float64, shapes, elements=grid),
    arrays(np.float64, shapes, elements=st.floats(-1e6, 1e6)),
)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a >= b).all() and (a > b).any())


@given(score_tables)
def test_the_front_is_what_brute_force_finds(scores):
    expected = [
        not np.isnan(row).any() and not any(dominates(other, row) for other in scores)
        for row in scores
    ]
    assert non_dominated(scores).tolist() == expected


def test_duplicates_are_all_kept_and_no_rows_make_no_front():
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert non_dominated(scores).tolist() == [True, True, True, False, False]
    assert non_dominated(np.zeros((0, 2))).tolist() == []
    assert non_dominated(np.full((2, 2), np.nan)).tolist() == [False, False]


points_2d = arrays(np.float64, st.tuples(st.integers(0, 8), st.just(2)), elements=st.floats(-1, 1))


@given(points_2d, st.floats(-1, 0.5), st.floats(-1, 0.5))
def test_the_area_is_that_of_the_staircase(scores, x, y):
    area, height = 0.0, y
    for first, second in sorted(scores.tolist(), reverse=True):
        if first > x and second > height:
            area += (first - x) * (second - height)
            height = second
    assert hypervolume(scores, [x, y]) == pytest.approx(area, abs=1e-12)


def test_failed_rows_and_rows_below_the_reference_add_nothing():
    scores = np.array([[1.0, 2.0], [np.nan, 9.0], [9.0, -1.0], [2.0, 1.0]])
    assert hypervolume(scores, [0.0, 0.0]) == pytest.approx(3.0)
    assert hypervolume(np.zeros((0, 2)), [0.0, 0.0]) == 0.0
    assert hypervolume(np.full((2, 2), np.nan), [0.0, 0.0]) == 0.0
    assert hypervolume(np.array([[2.0, 3.0, 4.0]]), [1.0, 1.0, 1.0]) == pytest.approx(6.0)
    with pytest.raises(ValueError, match="3 reference values for 2 objectives"):
        hypervolume(scores, [0.0, 0.0, 0.0])


@given(score_tables, st.integers(0, 10))
def test_spread_picks_members_of_the_front_the_best_of_each_objective_first(scores, count):
    front = non_dominated(scores)
    picked = spread(scores, count)
    assert len(picked) == min(count, front.sum())
    assert len(set(picked.tolist())) == len(picked)
    assert front[picked].all()
    if count >= scores.shape[1] and front.any():
        np.testing.assert_array_equal(scores[picked].max(axis=0), scores[front].max(axis=0))
    np.testing.assert_array_equal(spread(scores, count), picked)


def test_spread_leaves_out_the_crowded():
    x = np.array([0.0, 0.01, 0.02, 0.5, 0.51, 1.0])
    scores = np.stack([x, 1 - x], axis=1)
    assert spread(scores, 6).tolist()[:2] == [5, 0]
    assert sorted(spread(scores, 3).tolist()) in ([0, 3, 5], [0, 4, 5])
    assert spread(scores, 1).tolist() == [5]


def test_spread_gives_one_of_two_close_neighbours_the_room_of_both():
    # Measured once, both 2 and 3 are more crowded than 1, and the middle would be lost.
    x = np.array([0.0, 0.2, 0.5, 0.501, 1.0])
    picked = spread(np.stack([x, 1 - x], axis=1), 4)
    assert sorted(picked.tolist()) in ([0, 1, 2, 4], [0, 1, 3, 4])


@given(arrays(np.float64, shapes, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))
def test_ranks_peel_one_front_after_the_other(scores):
    found = ranks(scores)
    left = scores.copy()
    for rank in range(len(scores)):
        front = non_dominated(left)
        np.testing.assert_array_equal(found == rank, front)
        left[front] = np.nan
        if np.isnan(left).all():
            break


@given(
    arrays(np.float64, st.tuples(st.integers(1, 9), st.just(2)), elements=grid | st.floats(0, 1))
)
def test_the_knee_is_furthest_from_the_line_through_the_ends(scores):
    front = [row for row in range(len(scores)) if non_dominated(scores)[row]]
    if not front:
        assert knee(scores) is None
        return
    low, high = scores[front].min(axis=0), scores[front].max(axis=0)
    places = {}
    for row in front:
        spans = [(v, a, b) for v, a, b in zip(scores[row], low, high, strict=True)]
        places[row] = [(v - a) / (b - a) if b > a else 0.0 for v, a, b in spans]
    # The ends are (0, 1) and (1, 0): the distance from a line through two points.
    (x1, y1), (x2, y2) = (0.0, 1.0), (1.0, 0.0)
    away = {
        row: -((x2 - x1) * (y1 - y) - (x1 - x) * (y2 - y1)) / np.hypot(x2 - x1, y2 - y1)
        for row, (x, y) in places.items()
    }
    found = knee(scores)
    assert found in front
    assert away[found] >= max(away.values()) - 1e-9


def test_the_knee_of_known_fronts():
    angle = np.linspace(0, np.pi / 2, 19)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert knee(circle) == 9
    assert knee(circle * [100, 0.1] + [5, -3]) == 9
    bent = np.array([[0.0, 1.0], [0.2, 0.98], [0.5, 0.6], [1.0, 0.0]])
    assert knee(bent) == 1
    # Inwards: nothing is above the line, and an end is chosen.
    assert knee(np.array([[0.0, 1.0], [0.2, 0.2], [1.0, 0.0]])) == 0
    assert knee(np.array([[0.3, 0.4]])) == 0
    assert knee(np.array([[np.nan, 1.0], [0.0, 0.0], [1.0, 1.0]])) == 2
    assert knee(np.full((3, 2), np.nan)) is None
    assert knee(np.zeros((0, 2))) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_knee_of_three_objectives_is_furthest_from_the_plane_through_the_best(seed):
    rng = np.random.default_rng(seed)
    directions = np.concatenate([np.eye(3), rng.dirichlet([2.0] * 3, 15)])
    scores = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    a, b, c = scores[:3]
    normal = np.cross(b - a, c - a)
    away = [(row - a) @ normal / np.linalg.norm(normal) for row in scores]
    assert knee(scores) == int(np.argmax(away))


def test_the_knee_where_one_member_is_the_best_in_two_objectives():
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 0.2, 1.0], [0.6, 0.7, 0.8]])
    # Two ends do not span a plane. The sums, each objective from its worst to its best: 2, 1, 2.03.
    assert knee(scores) == 2
    assert knee(scores - [[0, 0, 0], [0, 0, 0], [0, 0.1, 0]]) == 0
