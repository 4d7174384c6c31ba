"""How far each search algorithm comes with so many candidates, on analytic functions.

    python -m benchmarks.search [--functions sphere zdt1] [--noise 0 0.1] [--algorithms cma_es de]
        [--population 12] [--candidates 48 96 192 384] [--seeds 10] [--json FILE]
    python -m benchmarks.search --pymoo PYTHON [--json FILE]

`gap` is what is left to the best value or, with several objectives, the inverted generational
distance from the best front, of the candidate or the front that the search would choose: the best
by the fitness that it was told, at its true value. Noise is Gaussian, in standard deviations of
the function over the box. `gap` is the median over seeds, `low` and `high` are its quartiles,
`to_random` is its ratio to random search's, and `beats_random` the share of seeds with a smaller
gap than random search's of the same seed. Random search is always among the algorithms. With
`--json` a picture is drawn beside the file.

MAP-Elites is told the first two genes as descriptors. Natural niches is told no responses: there
are no items here, so it shows only what it does without.

`--merges SEARCH.yaml` runs a real search in several ways instead, ten seeds each, with as many
candidates as the first of `--candidates` in generations of `--population`: `benchmarks.merges.WAYS`
has the ways. Seeds count from `--first-seed`, so that machines can share them. `fresh_score` is
the winner's on items that the search never used, `uniform` that of the best uniform merge,
`answers` the items that candidates answered.

    python -m benchmarks.search --merges data/searches/zoo-ja.yaml --population 8 --candidates 64

`--pymoo` compares the fronts of ZDT1 and DTLZ2 with those of pymoo's algorithms of the same budget,
without noise. PYTHON is an interpreter that has pymoo; this project does not need it.
"""

import argparse
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.functions import FUNCTIONS, FloatArray, Function
from benchmarks.merges import WAYS, medians, run_searches
from benchmarks.record import report
from benchmarks.search_figures import draw_functions, draw_merges
from mergelib.evolution.algorithms import ALGORITHMS, Algorithm
from mergelib.evolution.front import non_dominated
from mergelib.evolution.randomness import generator

CANDIDATES = (48, 96, 192, 384)
BUDGETS = {"zdt1": (100, 200), "dtlz2": (92, 200)}
"""Population and generations of the comparison with pymoo: those of its own examples."""

_PYMOO = {"nsga2": "NSGA2", "nsga3": "NSGA3", "spea2": "SPEA2"}

# Runs in the environment that has pymoo. Arguments: algorithm, function, population, generations,
# seeds. One front a seed, minimised, as pymoo gives it.
_RUN = """
import json, sys
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.algorithms.moo.spea2 import SPEA2
from pymoo.optimize import minimize
from pymoo.problems import get_problem
from pymoo.util.ref_dirs import get_reference_directions
name, function, population, generations, seeds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
problem = get_problem(function)
def algorithm():
    if name == "NSGA3":
        p = population - 1 if problem.n_obj == 2 else 12
        points = get_reference_directions("das-dennis", problem.n_obj, n_partitions=p)
        return NSGA3(ref_dirs=points, pop_size=population)
    return {"NSGA2": NSGA2, "SPEA2": SPEA2}[name](pop_size=population)
fronts = [
    minimize(problem, algorithm(), ("n_gen", generations), seed=seed + 1).F.tolist()
    for seed in range(seeds)
]
json.dump(fronts, sys.stdout)
"""


def gaps(
    algorithm: Algorithm,
    function: Function,
    *,
    noise: float,
    population: int,
    candidates: Sequence[int],
    seed: int,
) -> list[float]:
    """Search once.

    Args:
        algorithm: what searches.
        function: what is searched.
        noise: standard deviation of what is added to each fitness, in those of the function.
        population: candidates in a generation.
        candidates: after how many to measure.
        seed: of the search and of the noise.

    Returns:
        The gap after each of `candidates`.
    """
    state = algorithm.start(function.dimension, population, seed, [])
    told = np.empty((0, function.objectives))
    true = np.empty((0, function.objectives))
    deviations = noise * function.scale()
    while len(told) < max(candidates):
        genomes = algorithm.ask(state)
        x = np.array(genomes)
        values = function.value(x)
        rng = generator(seed, state["generation"], "benchmark_noise")
        fitness = values + deviations * rng.standard_normal(values.shape)
        traits = x[:, :2] if algorithm.traits == "descriptors" else None
        state = algorithm.tell(state, genomes, fitness, traits)
        told, true = np.concatenate([told, fitness]), np.concatenate([true, values])
    return [function.gap(true[:count][_chosen(told[:count])]) for count in candidates]


def _chosen(told: FloatArray) -> FloatArray:
    """Rows that a search would choose by what it was told: the best one, or the front."""
    if told.shape[1] == 1:
        return np.array([int(np.argmax(told))])
    return np.flatnonzero(non_dominated(told))


def measure(
    functions: Sequence[str],
    noises: Sequence[float],
    algorithms: Sequence[str],
    *,
    population: int,
    candidates: Sequence[int],
    seeds: int,
) -> Iterator[dict[str, Any]]:
    """Yield the records: a function, a noise and an algorithm that can search it at a time."""
    names = ["random", *(name for name in algorithms if name != "random")]
    for function in (FUNCTIONS[name] for name in functions):
        for noise in noises:
            baseline = np.empty(0)
            for algorithm in (ALGORITHMS[name] for name in names):
                if function.objectives > 1 and not algorithm.several_objectives:
                    continue
                # (seeds, candidates)
                found = np.array(
                    [
                        gaps(
                            algorithm,
                            function,
                            noise=noise,
                            population=population,
                            candidates=candidates,
                            seed=seed,
                        )
                        for seed in range(seeds)
                    ]
                )
                baseline = found if algorithm.name == "random" else baseline
                for column, count in enumerate(candidates):
                    own, other = found[:, column], baseline[:, column]
                    low, median, high = np.quantile(own, [0.25, 0.5, 0.75]).tolist()
                    yield {
                        "function": function.name,
                        "noise": noise,
                        "algorithm": algorithm.name,
                        "candidates": count,
                        "population": population,
                        "seeds": seeds,
                        "gap": median,
                        "low": low,
                        "high": high,
                        "to_random": median / float(np.median(other)),
                        "beats_random": float((own < other).mean()),
                    }


def final_gap(
    algorithm: Algorithm, function: Function, budget: tuple[int, int], seed: int
) -> float:
    """The gap of the last population's front, without noise; budget: population, generations."""
    population, generations = budget
    state = algorithm.start(function.dimension, population, seed, [])
    for _ in range(generations):
        genomes = algorithm.ask(state)
        state = algorithm.tell(state, genomes, function.value(np.array(genomes)))
    last = np.array(state["fitness"])
    return function.gap(last[non_dominated(last)])


def against_pymoo(python: str, functions: Sequence[str], seeds: int) -> Iterator[dict[str, Any]]:
    """Yield the records of pymoo's algorithms and ours; `to_nsga2` is to pymoo's NSGA-II."""
    for function in (FUNCTIONS[name] for name in functions if name in BUDGETS):
        budget = BUDGETS[function.name]
        theirs: dict[str, list[float]] = {}
        for name in _PYMOO.values():
            arguments = [python, "-c", _RUN, name, function.name, *map(str, (*budget, seeds))]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"pymoo's {name} failed: {done.stderr[-2000:]}")
            theirs[name] = [function.gap(-np.array(front)) for front in json.loads(done.stdout)]
            yield _compared("pymoo", name, function, budget, theirs[name], theirs)
        for own in ("nsga2", "nsga3", "spea2", "mo_cma_es"):
            found = [final_gap(ALGORITHMS[own], function, budget, seed) for seed in range(seeds)]
            yield _compared("mergeflow", own, function, budget, found, theirs)


def _compared(
    program: str,
    name: str,
    function: Function,
    budget: tuple[int, int],
    found: Sequence[float],
    theirs: dict[str, list[float]],
) -> dict[str, Any]:
    low, median, high = np.quantile(found, [0.25, 0.5, 0.75]).tolist()
    same = theirs.get(_PYMOO.get(name, name), [np.nan])
    return {
        "program": program,
        "function": function.name,
        "algorithm": name,
        "population": budget[0],
        "generations": budget[1],
        "seeds": len(found),
        "igd": median,
        "low": low,
        "high": high,
        "to_nsga2": median / float(np.median(theirs["NSGA2"])),
        "to_the_same": None if np.isnan(same[0]) else median / float(np.median(same)),
    }


def speed(algorithms: Sequence[str], dimensions: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the CPU seconds of 1000 generations of 50 on a sphere, each state through JSON."""
    for name, dimension in itertools.product(algorithms, dimensions):
        algorithm = ALGORITHMS[name]
        state = algorithm.start(dimension, 50, 0, [])
        begun = time.process_time()
        for _ in range(1000):
            genomes = algorithm.ask(state)
            x = np.array(genomes)
            fitness = -((x - 0.3) ** 2).sum(axis=1, keepdims=True)
            state = json.loads(json.dumps(algorithm.tell(state, genomes, fitness)))
        seconds = time.process_time() - begun
        yield {"algorithm": name, "dimension": dimension, "cpu_seconds": seconds}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.1])
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--population", type=int, default=12)
    parser.add_argument("--candidates", nargs="+", type=int, default=list(CANDIDATES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0, help="of the real searches")
    parser.add_argument("--merges", metavar="SEARCH.yaml", type=Path, help="run a real search")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["default", "random", "racing"])
    parser.add_argument("--store", type=Path, help="keep the real searches' runs here, and go on")
    parser.add_argument("--speed", action="store_true", help="time 1000 generations of 50")
    parser.add_argument("--pymoo", metavar="PYTHON", help="compare with pymoo, which it has")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.merges is not None:
        budget = {"population": given.population, "candidates": given.candidates[0]}
        with tempfile.TemporaryDirectory() as temporary:
            store = given.store or Path(temporary)
            rows = []
            ways = {way: WAYS[way] for way in given.ways}
            seeds = range(given.first_seed, given.first_seed + given.seeds)
            for row in run_searches(given.merges, ways, seeds, store, **budget):
                rows.append(row)
                # A search takes minutes: what is measured is written at once.
                report("search", rows, given.json, shown=False)
        report("search", rows, None)
        report("search, medians", medians(rows), None)
        _picture(given.json, draw_merges(rows))
        return
    if given.speed:
        report("search-speed", list(speed(given.algorithms, (10, 20))), given.json)
        return
    if given.pymoo:
        rows = list(against_pymoo(given.pymoo, given.functions, given.seeds))
        report("search-pymoo", rows, given.json)
        return
    rows = list(
        measure(
            given.functions,
            given.noise,
            given.algorithms,
            population=given.population,
            candidates=given.candidates,
            seeds=given.seeds,
        )
    )
    report("search", rows, given.json)
    _picture(given.json, draw_functions(rows))


def _picture(beside: Path | None, svg: str) -> None:
    if beside is not None:
        beside.with_suffix(".svg").write_text(svg + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
