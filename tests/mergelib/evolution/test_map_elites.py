import numpy as np
import pytest

from mergelib.evolution import map_elites
from mergelib.evolution.algorithms import ALGORITHMS


def test_cells_are_an_even_grid():
    rng = np.random.default_rng(0)
    for x, y in [*rng.random((200, 2)), (0, 0), (1, 1), (0.125, 0.124999)]:
        expected = next(
            8 * i + j
            for i in range(8)
            for j in range(8)
            if i / 8 <= x and (x < (i + 1) / 8 or i == 7)
            if j / 8 <= y and (y < (j + 1) / 8 or j == 7)
        )
        assert map_elites.cell_of([x, y]) == expected
    assert map_elites.cell_of([np.nan, 0.5]) == map_elites.cell_of([0.5, np.nan]) == -1


def test_each_cell_holds_the_best_that_was_told(sphere):
    state = map_elites.start(3, 9, 0, [])
    seen: dict[int, tuple[float, list[float]]] = {}
    for _ in range(40):
        genomes = map_elites.ask(state)
        x = np.array(genomes)
        fitness, descriptors = sphere(x), x[:, 1:]
        state = map_elites.tell(state, genomes, fitness, descriptors)
        for genome, (value,), row in zip(genomes, fitness, descriptors, strict=True):
            cell = 8 * min(int(8 * row[0]), 7) + min(int(8 * row[1]), 7)
            seen[cell] = max(seen.get(cell, (-np.inf, [])), (value, genome))
    elites = {one["cell"]: (one["fitness"], one["genome"]) for one in state["elites"]}
    assert elites == seen
    assert list(elites) == sorted(elites)
    assert len(elites) > 20


def test_covers_more_of_the_map_than_a_genetic_algorithm_and_better_than_random_search():
    def score(x):
        return -((x - 0.6) ** 2).sum(axis=1, keepdims=True)

    for seed in range(3):
        cells, quality = {}, {}
        for name in ("map_elites", "ga", "random"):
            algorithm = ALGORITHMS[name]
            state = algorithm.start(8, 12, seed, [])
            best = np.full(64, np.nan)
            for _ in range(100):
                genomes = algorithm.ask(state)
                x = np.array(genomes)
                fitness = score(x)
                state = algorithm.tell(state, genomes, fitness, x[:, :2])
                for row, (value,) in zip(x, fitness, strict=True):
                    cell = map_elites.cell_of(row[:2])
                    best[cell] = np.fmax(best[cell], value)
            cells[name] = np.isfinite(best).sum()
            quality[name] = np.nansum(best + 4)  # the archive's sum of fitness, each above 0
        assert cells["map_elites"] > 1.5 * cells["ga"]
        assert quality["map_elites"] > 1.04 * quality["random"]


def test_elites_are_drawn_evenly(monkeypatch):
    state = map_elites.start(2, 10, 0, [])
    at = [[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]
    state = map_elites.tell(state, at, np.array([[9.0], [1.0], [-5.0]]), np.array(at))
    drawn = []
    monkeypatch.setattr(map_elites, "offspring", lambda state, mates: drawn.extend(mates) or [])
    for generation in range(300):
        map_elites.ask({**state, "generation": generation})
    share = [sum(list(one) == genome for one in drawn) / len(drawn) for genome in at]
    np.testing.assert_allclose(share, 1 / 3, atol=0.03)


def test_unknown_descriptors_are_a_cell_of_their_own():
    state = map_elites.start(2, 4, 0, [])
    genomes = map_elites.ask(state)
    descriptors = np.array([[np.nan, 0.1], [0.1, 0.1], [0.9, np.nan], [0.1, 0.1]])
    state = map_elites.tell(state, genomes, np.array([[1.0], [2.0], [3.0], [2.0]]), descriptors)
    found = [(one["cell"], one["genome"]) for one in state["elites"]]
    assert found == [(-1, genomes[2]), (0, genomes[3])]  # of equals the newcomer


def test_an_elite_that_is_told_again_goes_where_it_now_belongs():
    state = map_elites.start(1, 4, 0, [])
    a, b, c = [0.1], [0.2], [0.3]
    state = map_elites.tell(
        state, [a, b], np.array([[5.0], [2.0]]), np.array([[0.0, 0.0], [1.0, 1.0]])
    )
    lower = map_elites.tell(state, [a, c], np.array([[1.0], [1.5]]), np.zeros((2, 2)))
    assert [one["genome"] for one in lower["elites"]] == [c, b]
    moved = map_elites.tell(state, [a], np.array([[4.0]]), np.array([[1.0, 1.0]]))
    assert moved["elites"] == [{"cell": 63, "genome": a, "fitness": 4.0}]
    unknown = map_elites.tell(state, [a], np.array([[1.0]]))
    assert unknown["elites"][0] == {"cell": 0, "genome": a, "fitness": 1.0}
    failed = map_elites.tell(state, [a], np.array([[np.nan]]), np.zeros((1, 2)))
    assert failed["elites"] == state["elites"]


@pytest.mark.parametrize("population", [2, 3, 7])
def test_any_number_of_elites_breeds_any_population(population):
    state = map_elites.start(2, population, 0, [])
    genomes = map_elites.ask(state)
    fitness = np.full((population, 1), np.nan)
    fitness[0] = 1.0
    state = map_elites.tell(state, genomes, fitness, np.full((population, 2), 0.5))
    assert len(state["elites"]) == 1
    assert len(map_elites.ask(state)) == population
