"""Evolve: ask the algorithm for genomes, tell it what they were worth."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from mergelib.asking import genomes_of, state_before
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.fitness import judge_of
from mergelib.genes import Genome
from mergelib.ledger import spent_by
from mergelib.runs import Run
from mergelib.traits import traits_of


@task(task_run_name="ask", cache_policy=NO_CACHE)
def ask(run: str, generation: int) -> list[Genome]:
    """The genomes of a generation."""
    return genomes_of(Run(Path(run)), generation)


@task(task_run_name="tell", cache_policy=NO_CACHE)
def tell(run: str, generation: int) -> None:
    """Write the state after a generation; with it the generation is finished."""
    folder = Run(Path(run))
    judge, table = judge_of(folder), folder.generation(generation)
    algorithm = ALGORITHMS[folder.search.evolution.algorithm]
    traits = traits_of(algorithm.traits, folder, judge, generation)
    genomes, fitness = table["genome"].to_pylist(), judge.told(table)
    before = state_before(folder, generation)
    after = algorithm.tell(before, genomes, fitness, traits)
    folder.write_state(generation, after, spent_by(folder))
