import numpy as np
import pytest

from mergelib.evolution import spea2


def dominates(a, b) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def distances(scores: np.ndarray) -> list[list[float]]:
    span = [max(column) - min(column) or 1.0 for column in scores.T]
    return [
        [sum(((x - y) / s) ** 2 for x, y, s in zip(a, b, span, strict=True)) ** 0.5 for b in scores]
        for a in scores
    ]


def table(seed: int, objectives: int, n: int = 14) -> np.ndarray:
    """Values with ties and duplicates on even seeds, all different on odd ones."""
    scores = np.random.default_rng(seed).random((n, objectives))
    return scores.round(1) if seed % 2 == 0 else scores


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("objectives", [1, 2, 4])
def test_fitness_is_the_papers(seed, objectives):
    scores = table(seed, objectives)
    n = len(scores)
    S = [sum(dominates(a, b) for b in scores) for a in scores]
    R = [sum(S[j] for j in range(n) if dominates(scores[j], scores[i])) for i in range(n)]
    k = int(n**0.5)
    D = [1 / (sorted(row[:i] + row[i + 1 :])[k - 1] + 2) for i, row in enumerate(distances(scores))]
    np.testing.assert_allclose(spea2.strength_fitness(scores), np.add(R, D), rtol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_a_front_that_is_too_large_is_thinned_as_the_paper_says(seed):
    x = table(seed, 1, 12)[:, 0]
    scores = np.stack([x, 1 - x], axis=1)
    left = list(range(12))
    apart = distances(scores)
    while len(left) > 5:
        lists = {i: sorted(round(apart[i][j], 9) for j in left if j != i) for i in left}
        worst = min(lists.values())
        left.remove(max(i for i in left if lists[i] == worst))
    # On a grid rounding decides between equal distances, and what is kept is another, as good.
    kept = spea2.selected(scores, 5)
    if seed % 2:
        assert kept == left
    assert len(set(kept)) == 5
    assert len(set(scores[kept, 0])) == len(set(scores[left, 0]))


@pytest.mark.parametrize("seed", range(10))
def test_a_front_that_is_too_small_is_filled_up_with_the_best_of_the_others(seed):
    scores = table(seed, 2, 20)
    F = spea2.strength_fitness(scores)
    front = [i for i in range(20) if not any(dominates(b, scores[i]) for b in scores)]
    count = len(front) + 3
    kept = spea2.selected(scores, count)
    assert set(front) <= set(kept)
    assert sorted(F[kept]) == sorted(F)[:count]


def test_units_do_not_matter():
    scores = table(1, 2, 30)
    assert spea2.selected(scores, 8) == spea2.selected(scores * [1000, 0.01] + [3, -7], 8)


def test_tournaments_are_won_by_the_fitter(monkeypatch):
    state = spea2.start(2, 6, 0, [])
    genomes = spea2.ask(state)
    # One dominates all: it wins every tournament that it is in.
    state = spea2.tell(state, genomes, np.array([[n, n] for n in range(6)], dtype=float))
    mates = []
    monkeypatch.setattr(spea2, "offspring", lambda state, chosen: mates.extend(chosen) or [])
    for generation in range(300):
        spea2.ask({**state, "generation": generation})
    wins = sum(list(one) == genomes[5] for one in mates) / len(mates)
    assert abs(wins - (1 - (5 / 6) ** 2)) < 0.04
    assert sum(list(one) == genomes[0] for one in mates) / len(mates) < 0.06


def test_a_genome_that_is_told_again_has_its_newer_fitness():
    state = spea2.start(1, 2, 0, [])
    state = spea2.tell(state, [[0.1], [0.2]], np.array([[1.0, 0.0], [0.0, 1.0]]))
    state = spea2.tell(state, [[0.1], [0.3]], np.array([[-1.0, -1.0], [0.5, 0.5]]))
    assert sorted(state["parents"]) == [[0.2], [0.3]]
