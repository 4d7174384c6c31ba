from math import comb

import numpy as np
import pytest

from mergelib.evolution import nsga3


def on_lines(shares: list[float], length: float = 1.0) -> np.ndarray:
    """Two objectives to be maximised, at `length` from the ideal (0, 0) in the directions asked."""
    return -length * np.array([[share, 1 - share] for share in shares])


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
@pytest.mark.parametrize("population", [2, 12, 92])
def test_there_are_as_many_lines_as_the_population_holds(objectives, population):
    points = nsga3.reference_points(objectives, population)
    np.testing.assert_allclose(points.sum(axis=1), 1)
    assert points.min() >= 0
    assert len(np.unique(points.round(9), axis=0)) == len(points)
    p = round(1 / points[points > 0].min())
    if objectives == 1:
        assert points.tolist() == [[1.0]]
        return
    assert len(points) == comb(p + objectives - 1, objectives - 1)
    assert len(points) <= max(population, objectives)
    assert comb(p + objectives, objectives - 1) > population


def test_each_candidate_belongs_to_the_line_that_it_is_closest_to():
    rng = np.random.default_rng(0)
    # The extremes lie on the axes, so that the ideal point is 0 and the intercepts are 1.
    scores = np.concatenate([-np.eye(3), -rng.random((30, 3))])
    lines = nsga3.reference_points(3, 15)
    found = nsga3.associated(scores, np.arange(33) < 3, lines)
    for row, cost in enumerate(-scores):
        off = []
        for line in lines:
            unit = line / np.sqrt((line**2).sum())
            off.append(np.sqrt(((cost - (cost @ unit) * unit) ** 2).sum()))
        assert found.distance[row] == pytest.approx(min(off))
        assert off[found.line[row]] == pytest.approx(min(off))


def test_lines_without_members_take_their_closest_candidate():
    # Three lines: all of the first objective, half, none. The front has both ends and two in the
    # middle, of which one is closer.
    scores = np.concatenate([on_lines([0.0, 1.0], 0.8), on_lines([0.02, 0.9, 0.95, 0.45, 0.4])])
    for seed in range(10):
        assert sorted(nsga3.selected(scores, 3, np.random.default_rng(seed))) == [0, 1, 5]


@pytest.mark.parametrize("seed", range(20))
def test_niches_are_filled_evenly(seed):
    """Algorithm 4: no line takes another member while one with fewer has a candidate."""
    rng = np.random.default_rng(seed)
    directions = rng.dirichlet([0.5] * 3, 30)
    lengths = np.where(np.arange(30) < 6, 0.7, 1.0)[:, None]
    scores = -lengths * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    count = 15
    chosen = nsga3.selected(scores, count, np.random.default_rng(seed))
    assert len(set(chosen)) == count
    rank = nsga3.ranks(scores)
    last = max(rank[chosen])
    assert set(np.flatnonzero(rank < last)) <= set(chosen)
    considered = np.flatnonzero(rank <= last)
    lines = nsga3.reference_points(3, count)
    niches = nsga3.associated(scores[considered], rank[considered] == 0, lines)
    line = dict(zip(considered.tolist(), niches.line.tolist(), strict=True))
    distance = dict(zip(considered.tolist(), niches.distance.tolist(), strict=True))
    taken = [row for row in chosen if rank[row] == last]
    waiting = [row for row in considered.tolist() if row not in chosen]
    counts = np.bincount([line[row] for row in chosen], minlength=len(lines))
    sure = np.bincount([line[row] for row in chosen if rank[row] < last], minlength=len(lines))
    for row in waiting:
        # Every line that took someone was, then, no fuller than this one's is now.
        assert all(counts[line[other]] - 1 <= counts[line[row]] for other in taken)
    for at in {line[row] for row in taken if sure[line[row]] == 0}:
        closest = min((r for r in line if line[r] == at and rank[r] == last), key=distance.get)
        assert closest in chosen


def test_units_and_levels_of_the_objectives_do_not_matter():
    """They do in DEAP's `selNSGA3`, which is right only where the ideal point is 0."""
    rng = np.random.default_rng(3)
    directions = np.concatenate([np.eye(2), rng.dirichlet([1.0, 1.0], 38)])
    scores = -directions / np.linalg.norm(directions, axis=1, keepdims=True)
    plain = nsga3.selected(scores, 12, np.random.default_rng(0))
    moved = nsga3.selected(scores * [50, 0.1] + [300, -2], 12, np.random.default_rng(0))
    assert plain == moved


@pytest.mark.parametrize(
    "scores",
    [[[1.0, 1.0]] * 5, [[0.0, 1.0]] * 3 + [[0.0, 0.5]] * 2, [[5.0, 5.0], *[[1.0, 2.0]] * 4]],
)
def test_fronts_without_extent_are_selected_from(scores):
    chosen = nsga3.selected(np.array(scores), 3, np.random.default_rng(0))
    assert len(set(chosen)) == 3
    assert sorted(chosen)[0] == 0 or scores[0] == scores[1]


def test_a_genome_that_is_told_again_has_its_newer_fitness():
    state = nsga3.start(1, 2, 0, [])
    state = nsga3.tell(state, [[0.1], [0.2]], np.array([[1.0, 0.0], [0.0, 1.0]]))
    state = nsga3.tell(state, [[0.1], [0.3]], np.array([[-1.0, -1.0], [0.5, 0.5]]))
    assert sorted(state["parents"]) == [[0.2], [0.3]]
