"""Evolve: one generation."""

import time
from pathlib import Path

from prefect import flow

from flows.progress import progress
from flows.race import challenge, race
from mergelib.fitness import judge_of
from mergelib.runs import Run
from tasks.publishing import show_generation
from tasks.selection import estimate
from tasks.variation import ask, tell


@flow(
    name="generation",
    flow_run_name="generation {number}",
    persist_result=False,
    result_serializer="json",
)
def generation(run: str, number: int) -> float:
    """Ask for genomes, merge and answer each, estimate, tell.

    Args:
        run: the run folder.
        number: of the generation, from 0 on.

    Returns:
        The highest fitness of the generation.
    """
    start = time.perf_counter()
    folder = Run(Path(run))
    space = folder.workbench().space
    judge = judge_of(folder)
    genomes = ask(run, number)
    recipes = [space.decode(genome).to_yaml() for genome in genomes]
    answers = race(folder, judge, recipes, number)
    answers = challenge(folder, judge, recipes, number, answers)
    best = estimate(run, number, genomes, answers)
    tell(run, number)
    show_generation(run, number)
    seconds = time.perf_counter() - start
    progress.generation(number, folder.search.evolution.generations, best, seconds)
    return best
