import numpy as np

from mergelib.evolution import differential_evolution as de


def told(state: dict, sphere) -> dict:
    genomes = de.ask(state)
    return de.tell(state, genomes, sphere(np.array(genomes)))


def test_each_trial_is_the_best_plus_a_scaled_difference_crossed_with_its_target(sphere):
    state = de.start(4, 7, 0, [])
    for _ in range(6):
        state = told(state, sphere)
        x = np.array(state["parents"])
        best = x[np.argmax(state["fitness"])]
        for target, trial in enumerate(np.array(de.ask(state))):
            crossed = trial != x[target]
            explained = []
            for r1 in range(7):
                for r2 in range(7):
                    if len({r1, r2, target}) < 3:
                        continue
                    v = best + de.F * (x[r1] - x[r2])
                    v = np.where(v < 0, x[target] / 2, v)
                    v = np.where(v > 1, (1 + x[target]) / 2, v)
                    explained.append(np.allclose(trial[crossed], v[crossed], rtol=0, atol=1e-15))
            assert crossed.any()
            assert any(explained)


def test_nine_genes_of_ten_are_crossed():
    state = de.start(50, 40, 0, [])
    genomes = de.ask(state)
    state = de.tell(state, genomes, np.arange(40.0)[:, None])
    crossed = np.array(de.ask(state)) != np.array(state["parents"])
    assert abs(crossed.mean() - de.CR) < 0.02


def test_a_trial_replaces_its_target_and_nobody_else():
    state = de.start(3, 6, 0, [])
    genomes = de.ask(state)
    state = de.tell(state, genomes, np.arange(6.0)[:, None])
    trials = de.ask(state)
    # Number 1 is better than its target, 2 as good, 3 worse than its target but not than all.
    fitness = np.array([np.nan, 1.5, 2.0, 2.9, -1.0, np.nan])[:, None]
    after = de.tell(state, trials, fitness)
    assert after["fitness"] == [[0.0], [1.5], [2.0], [3.0], [4.0], [5.0]]
    assert after["parents"] == [genomes[0], *trials[1:3], *genomes[3:]]


def test_places_that_failures_left_are_filled():
    state = de.start(3, 6, 0, [])
    genomes = de.ask(state)
    fitness = np.array([1.0, 2.0, 3.0, 4.0, np.nan, np.nan])[:, None]
    state = de.tell(state, genomes, fitness)
    assert state["parents"] == genomes[:4]
    trials = de.ask(state)
    assert len(trials) == 6
    state = de.tell(state, trials, np.full((6, 1), -1.0))
    assert state["parents"] == [*genomes[:4], *trials[4:]]


def test_a_stranger_challenges_the_closest_member():
    state = de.start(1, 4, 0, [])
    at = [[0.1], [0.4], [0.6], [0.9]]
    state = de.tell(state, at, np.array([[1.0], [2.0], [3.0], [4.0]]))
    state = de.tell(state, [[0.45], [0.95]], np.array([[2.5], [3.5]]))
    assert state["parents"] == [[0.1], [0.45], [0.6], [0.9]]
    assert state["fitness"] == [[1.0], [2.5], [3.0], [4.0]]


def test_a_member_that_is_told_again_has_its_newer_fitness():
    state = de.start(1, 4, 0, [])
    at = [[0.1], [0.4], [0.6], [0.9]]
    state = de.tell(state, at, np.array([[1.0], [2.0], [3.0], [4.0]]))
    state = de.tell(state, [[0.9], [0.1]], np.array([[0.5], [np.nan]]))
    assert state["parents"] == at
    assert state["fitness"] == [[1.0], [2.0], [3.0], [0.5]]
