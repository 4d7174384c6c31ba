"""Evolve: one generation."""

from collections.abc import Iterator
from pathlib import Path

from prefect import flow

from flows.race import challenge, opening, race
from mergelib.asking import genomes_of
from mergelib.genes import Genome
from mergelib.judging import judge_of
from mergelib.runs import Run
from mergelib.stopping import reason_to_stop
from tasks.selection import estimate
from tasks.side_by_side import Question
from tasks.variation import ask, tell


def _recipes(run: Run, genomes: list[Genome]) -> list[str]:
    space = run.workbench().space
    return [space.decode(genome).to_yaml() for genome in genomes]


def _later(run: Run, number: int) -> Iterator[Question]:
    """What the generations after this one begin with, as far as the search asks ahead."""
    for following in range(number + 1, number + 1 + run.search.evolution.ahead):
        if reason_to_stop(run, following) is None:
            recipes = _recipes(run, genomes_of(run, following))
            yield from opening(run, judge_of(run, 0), recipes, following)


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
    judge = judge_of(folder, 0)
    genomes = ask(run, number)
    recipes, later = _recipes(folder, genomes), _later(folder, number)
    answers = race(folder, judge, recipes, number, later)
    answers = challenge(folder, judge, recipes, number, answers, later)
    best = estimate(run, number, genomes, answers)
    tell(run, number)
    return best
