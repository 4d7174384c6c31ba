import sys

import numpy as np
import pytest

from benchmarks import search
from benchmarks.functions import FUNCTIONS
from benchmarks.record import report
from benchmarks.search_figures import draw_functions
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.evolution.front import non_dominated


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_better_than_the_optimum_and_it_can_be_reached(name):
    function = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    values = function.value(rng.random((3000, function.dimension)))
    assert values.shape == (3000, function.objectives)
    both = np.concatenate([values, function.optimum])
    assert non_dominated(both)[3000:].all()
    assert not non_dominated(both)[:3000].any()
    best = {
        "sphere": np.resize([0.3, 0.95], (1, 10)),
        "rastrigin": np.resize([0.3, 0.95], (1, 10)),
        "zdt1": np.pad(np.linspace(0, 1, 500)[:, None], ((0, 0), (0, 29))),
        "dtlz2": np.concatenate([rng.random((9000, 2)), np.full((9000, 10), 0.5)], axis=1),
    }[name]
    assert function.gap(function.value(best)) < 0.02


def test_the_gap_is_the_mean_distance_to_the_closest():
    function = FUNCTIONS["zdt1"]
    values = -np.array([[0.0, 1.0], [1.0, 0.0]])
    expected = [min(np.hypot(*(point - value)) for value in values) for point in function.optimum]
    assert function.gap(values) == pytest.approx(np.mean(expected))
    assert FUNCTIONS["sphere"].gap(np.array([[-3.0], [-2.0]])) == 2.0


def test_what_is_chosen_is_judged_by_its_true_value():
    algorithm, function = ALGORITHMS["random"], FUNCTIONS["sphere"]
    settings = {"population": 6, "candidates": [6, 60, 300], "seed": 0}
    still = search.gaps(algorithm, function, noise=0.0, **settings)
    assert still == sorted(still, reverse=True)
    state, best = algorithm.start(10, 6, 0, []), []
    for _ in range(50):
        genomes = algorithm.ask(state)
        best += function.value(np.array(genomes))[:, 0].tolist()
        state = algorithm.tell(state, genomes, np.zeros((6, 1)))
    assert still == [-max(best[:count]) for count in (6, 60, 300)]
    # With nothing but noise any of them may be chosen.
    lost = search.gaps(algorithm, function, noise=1e6, **settings)
    assert all(gap in [-value for value in best] for gap in lost)
    assert lost[-1] > 2 * still[-1]


def test_records_compare_with_random_search_on_the_same_seeds(tmp_path):
    rows = list(
        search.measure(
            ["sphere", "zdt1"], [0.0, 0.1], ["cma_es", "nsga2"],
            population=12, candidates=[24, 192], seeds=3,
        )
    )  # fmt: skip
    found = {(row["function"], row["noise"], row["algorithm"]) for row in rows}
    sphere = {("sphere", noise, name) for noise in (0.0, 0.1) for name in ("random", "cma_es")}
    several = {
        (f, n, a) for f in ("sphere", "zdt1") for n in (0.0, 0.1) for a in ("nsga2", "random")
    }
    assert found == sphere | several
    for row in rows:
        assert row["low"] <= row["gap"] <= row["high"]
        if row["algorithm"] == "random":
            assert (row["to_random"], row["beats_random"]) == (1.0, 0.0)
        if row["algorithm"] == "cma_es" and row["candidates"] == 192:
            assert row["to_random"] < 0.5
            assert row["beats_random"] == 1.0
    report("search", rows, tmp_path / "out.json")
    picture = draw_functions(rows)
    assert picture == draw_functions(rows)
    for text in ("sphere, noise 0.1", "zdt1, noise 0", "cma_es", "candidates"):
        assert text in picture


def test_the_comparison_with_pymoo_reads_its_fronts(monkeypatch):
    # Stands in for an interpreter with pymoo: what it prints is the shape that matters here.
    fake = "import json, sys; json.dump([[[0.0, 1.0], [1.0, 0.0]]] * int(sys.argv[5]), sys.stdout)"
    monkeypatch.setattr(search, "_RUN", fake)
    monkeypatch.setattr(search, "BUDGETS", {"zdt1": (12, 3)})
    rows = list(search.against_pymoo(sys.executable, ["zdt1", "sphere"], 2))
    assert [row["algorithm"] for row in rows] == [
        *("NSGA2", "NSGA3", "SPEA2"),
        *("nsga2", "nsga3", "spea2", "mo_cma_es"),
    ]
    ends = FUNCTIONS["zdt1"].gap(-np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert rows[0]["igd"] == pytest.approx(ends)
    for row in rows[3:]:
        gaps = [
            search.final_gap(ALGORITHMS[row["algorithm"]], FUNCTIONS["zdt1"], (12, 3), seed)
            for seed in range(2)
        ]
        assert row["igd"] == pytest.approx(np.median(gaps))
        assert row["to_nsga2"] == pytest.approx(np.median(gaps) / ends)
    assert rows[-1]["to_the_same"] is None
    monkeypatch.setattr(search, "_RUN", "raise ImportError('no pymoo')")
    with pytest.raises(SystemExit, match="no pymoo"):
        list(search.against_pymoo(sys.executable, ["zdt1"], 2))
