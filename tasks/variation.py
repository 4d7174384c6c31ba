"""Evolve: ask the algorithm for genomes, tell it what they were worth."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.finalists import best_of
from mergelib.fitness import fitness_matrix
from mergelib.recipes import Recipe
from mergelib.runs import Run
from mergelib.space import Genome

_FROM_SWEEP = 4
"""How many uniform merges the first population may hold where several objectives are traded off."""


def _state_before(run: Run, generation: int) -> Any:
    """The optimiser's state that a generation starts from."""
    if generation > 0:
        return run.state(generation - 1)
    search = run.search
    bench = run.workbench()
    space, endpoints = bench.space, len(search.endpoints)
    # The best of the uniform merges; the best trade-offs, if there are several objectives. They
    # have been answered already and cost nothing.
    count = 1 if len(bench.benchmarks) == 1 else _FROM_SWEEP
    sweep = best_of(run.table("uniform.parquet"), bench, count, "uniform")
    best = [space.encode(Recipe.from_yaml(uniform.reference)) for uniform in sweep]
    even = space.mixture([1 / endpoints] * endpoints)
    corners = [space.mixture([float(n == m) for n in range(endpoints)]) for m in range(endpoints)]
    first = [*best, even, *corners]
    algorithm = ALGORITHMS[search.evolution.algorithm]
    return algorithm.start(space.dimension, search.evolution.population, search.seed, first)


@task(task_run_name="ask", cache_policy=NO_CACHE)
def ask(run: str, generation: int) -> list[Genome]:
    """The genomes of a generation."""
    folder = Run(Path(run))
    return ALGORITHMS[folder.search.evolution.algorithm].ask(_state_before(folder, generation))


@task(task_run_name="tell", cache_policy=NO_CACHE)
def tell(run: str, generation: int) -> None:
    """Write the state after a generation; with it the generation is finished."""
    folder = Run(Path(run))
    table = folder.generation(generation)
    fitness = fitness_matrix(table, list(folder.workbench().benchmarks))
    algorithm = ALGORITHMS[folder.search.evolution.algorithm]
    before = _state_before(folder, generation)
    folder.write_state(generation, algorithm.tell(before, table["genome"].to_pylist(), fitness))
