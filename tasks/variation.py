"""Evolve: ask the algorithm for genomes, tell it what they were worth."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.finalists import best_of
from mergelib.fitness import judge_of
from mergelib.genes import Genome
from mergelib.ledger import spent
from mergelib.recipes import Recipe
from mergelib.runs import Run
from mergelib.traits import traits_of

_FROM_SWEEP = 4
"""How many uniform merges the first population may hold where several objectives are traded off."""


def _state_before(run: Run, generation: int) -> Any:
    """The optimiser's state that a generation starts from."""
    if generation > 0:
        return run.state(generation - 1)
    search = run.search
    bench = run.workbench()
    space = bench.space
    # The best of the uniform merges; the best trade-offs, if there are several objectives. They
    # have been answered already and cost nothing.
    count = _FROM_SWEEP if search.front else 1
    sweep = best_of(run.table("uniform.parquet"), judge_of(run), count, "uniform", run.here)
    best = [space.encode(Recipe.from_yaml(uniform.reference)) for uniform in sweep]
    # The best uniform merge may be the even one: a place in the population is worth more.
    first = [list(genome) for genome in dict.fromkeys(map(tuple, [*best, *space.first()]))]
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
    judge, table = judge_of(folder), folder.generation(generation)
    algorithm = ALGORITHMS[folder.search.evolution.algorithm]
    traits = traits_of(algorithm.traits, folder, judge, generation)
    genomes, fitness = table["genome"].to_pylist(), judge.told(table)
    before = _state_before(folder, generation)
    after = algorithm.tell(before, genomes, fitness, traits)
    folder.write_state(generation, after, spent(folder.events()))
