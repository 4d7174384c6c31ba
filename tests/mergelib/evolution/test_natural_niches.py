import numpy as np
import pytest

from mergelib.evolution import natural_niches as niches
from mergelib.evolution.population import Individual


def shares_by_hand(scores: list[list[float]]) -> list[list[float]]:
    answered = [sum(row[j] for row in scores) for j in range(len(scores[0]))]
    return [[y / z if z else 0.0 for y, z in zip(row, answered, strict=True)] for row in scores]


@pytest.mark.parametrize("seed", range(10))
def test_items_are_split_and_mates_are_drawn_to_what_one_lacks(seed):
    scores = (np.random.default_rng(seed).random((6, 9)) < 0.4).astype(float)
    expected = shares_by_hand(scores.tolist())
    shares = niches.shared(scores)
    np.testing.assert_allclose(shares, expected)
    # Every item that somebody answers is given away whole.
    np.testing.assert_allclose(shares.sum(axis=0), scores.any(axis=0))
    for one in range(6):
        pull = [
            sum(max(0.0, s2 - s1) for s1, s2 in zip(expected[one], row, strict=True))
            for row in expected
        ]
        np.testing.assert_allclose(niches.attraction(shares, one), pull)
        assert pull[one] == 0


@pytest.mark.parametrize("seed", range(10))
def test_the_smallest_share_goes_first_and_the_others_share_anew(seed):
    scores = (np.random.default_rng(seed).random((9, 12)) < 0.5).astype(float)
    left = list(range(9))
    while len(left) > 4:
        totals = [round(sum(row), 9) for row in shares_by_hand(scores[left].tolist())]
        left.pop(max(i for i, total in enumerate(totals) if total == min(totals)))
    assert niches.survivors(scores, 4).tolist() == left


def test_one_who_alone_answers_an_item_survives_better_ones():
    crowd = [[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]] * 4
    loner = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    state = niches.start(1, 4, 0, [])
    genomes = [[0.1], [0.2], [0.3], [0.4], [0.9]]
    fitness = np.array([[4 / 6]] * 4 + [[2 / 6]])
    told = niches.tell(state, genomes, fitness, np.array([*crowd, loner]))
    assert [0.9] in told["parents"]
    # By fitness alone it is the first to go.
    assert [0.9] not in niches.tell(state, genomes, fitness)["parents"]


def test_parents_are_drawn_by_share_and_mates_by_attraction(monkeypatch):
    responses = np.array([[1.0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]])
    state = niches.start(1, 3, 0, [])
    state = niches.tell(state, [[0.1], [0.5], [0.9]], np.array([[0.5], [0.3], [0.2]]), responses)
    mates: list[Individual] = []
    monkeypatch.setattr(niches, "offspring", lambda state, chosen: mates.extend(chosen) or [])
    for generation in range(1500):
        niches.ask({**state, "generation": generation})
    names = {0.1: 0, 0.5: 1, 0.9: 2}
    drawn = np.array([names[one[0]] for one in mates]).reshape(-1, 2)
    first = np.bincount(drawn[:, 0], minlength=3) / len(drawn)
    # The first two split two items; the first has one to itself, and so has the third.
    np.testing.assert_allclose(first, [2 / 4, 1 / 4, 1 / 4], atol=0.03)
    of_first = drawn[drawn[:, 0] == 0, 1]
    assert set(of_first) == {2}  # the second brings nothing that the first lacks
    of_third = np.bincount(drawn[drawn[:, 0] == 2, 1], minlength=3)
    np.testing.assert_allclose(of_third / of_third.sum(), [2 / 3, 1 / 3, 0], atol=0.05)


def test_nobody_right_anywhere_is_drawn_from_evenly():
    state = niches.start(2, 6, 0, [])
    genomes = niches.ask(state)
    state = niches.tell(state, genomes, np.zeros((6, 1)), np.zeros((6, 5)))
    assert len(niches.ask(state)) == 6
    np.testing.assert_array_equal(niches.shared(np.zeros((2, 3))), np.zeros((2, 3)))


def test_what_was_not_answered_is_expected_from_candidate_and_item():
    responses = np.array([[1, 1, np.nan], [1, 0, 0], [np.nan, np.nan, np.nan], [1, np.nan, 1]])
    candidates = [Individual([0.0], [v]) for v in (0.3, 0.1, 0.2, 0.4)]
    filled = niches.completed(responses, candidates)
    everyone = 5 / 7
    assert filled[0, 2] == pytest.approx(1 + 0.5 - everyone)
    assert filled[3, 1] == pytest.approx(1 + 0.5 - everyone)
    np.testing.assert_allclose(filled[2], np.clip([1, 0.5, 0.5], 0, 1))
    np.testing.assert_array_equal(filled[~np.isnan(responses)], responses[~np.isnan(responses)])
    assert filled.min() >= 0
    assert filled.max() <= 1


def test_without_any_response_ranks_stand_for_scores():
    candidates = [Individual([0.0], [v]) for v in (-3.0, 7.0, -1.0, -1.0)]
    for nothing in (np.empty((4, 0)), np.full((4, 3), np.nan)):
        ranked = niches.completed(nothing, candidates)
        assert ranked.tolist() == [[0.25], [1.0], [0.625], [0.625]]


def test_a_genome_that_is_told_again_has_its_newer_answers():
    nan = np.nan
    state = niches.start(1, 3, 0, [])
    first = np.array([[1.0, nan, 0.0], [0.0, 1.0, nan]])
    state = niches.tell(state, [[0.1], [0.2]], np.array([[0.5], [0.6]]), first)
    assert state["responses"] == [[1.0, None, 0.0], [0.0, 1.0, None]]
    again = niches.tell(state, [[0.1]], np.array([[0.7]]), np.array([[0.0, 1.0, nan]]))
    assert again["parents"] == [[0.1], [0.2]]
    assert again["fitness"] == [[0.7], [0.6]]
    assert again["responses"] == [[0.0, 1.0, 0.0], [0.0, 1.0, None]]


def test_when_the_items_change_parents_count_with_their_means():
    nan = np.nan
    state = niches.start(1, 3, 0, [])
    first = np.array([[1.0, nan, 0.0], [nan, nan, nan]])
    state = niches.tell(state, [[0.1], [0.2]], np.array([[0.5], [0.6]]), first)
    told = niches.tell(state, [[0.3]], np.array([[0.5]]), np.array([[1.0, 0.0]]))
    rows = dict(zip((g for (g,) in told["parents"]), told["responses"], strict=True))
    assert rows == {0.1: [0.5, 0.5], 0.2: [None, None], 0.3: [1.0, 0.0]}


@pytest.mark.parametrize("seed", range(3))
def test_keeps_specialists_that_a_genetic_algorithm_loses(seed):
    """Two peaks answer different items, the lower one fewer; ten items, each right near a peak."""
    from mergelib.evolution.algorithms import ALGORITHMS

    def answers(x: np.ndarray) -> np.ndarray:
        high, low = (np.abs(x - at).max(axis=1) < 0.25 for at in (0.25, 0.75))
        return np.repeat(np.stack([high, low], axis=1), [7, 3], axis=1).astype(float)

    kept = {}
    for name in ("natural_niches", "ga"):
        algorithm = ALGORITHMS[name]
        state = algorithm.start(2, 12, seed, [])
        for _ in range(30):
            genomes = algorithm.ask(state)
            right = answers(np.array(genomes))
            state = algorithm.tell(state, genomes, right.mean(axis=1, keepdims=True), right)
        kept[name] = answers(np.array(state["parents"])).any(axis=0).sum()
    assert kept == {"natural_niches": 10, "ga": 7}
