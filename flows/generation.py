"""Evolve: one generation."""

from pathlib import Path

from prefect import flow

from flows.race import challenge, race
from mergelib.fitness import judge_of
from mergelib.runs import Run
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
    folder = Run(Path(run))
    space = folder.workbench().space
    judge = judge_of(folder)
    genomes = ask(run, number)
    recipes = [space.decode(genome).to_yaml() for genome in genomes]
    answers = race(folder, judge, recipes, number)
    answers = challenge(folder, judge, recipes, number, answers)
    best = estimate(run, number, genomes, answers)
    tell(run, number)
    return best
