"""Evolve: one generation."""

import time
from pathlib import Path

from prefect import flow

from flows.progress import progress
from mergelib.runs import Run
from tasks.candidates import answered
from tasks.publishing import show_generation
from tasks.selection import estimate, judge_of
from tasks.variation import ask, tell


@flow(name="generation", flow_run_name="generation {number}", persist_result=False)
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
    anchors = judge_of(folder).anchors
    genomes = ask(run, number)
    answers = []
    for individual, genome in enumerate(genomes):
        progress.at(f"generation {number + 1}: candidate {individual + 1} of {len(genomes)}")
        recipe = space.decode(genome).to_yaml()
        answers.append(answered(folder, recipe, anchors, f"{number}.{individual}"))
    best = estimate(run, number, genomes, answers)
    tell(run, number)
    show_generation(run, number)
    seconds = time.perf_counter() - start
    progress.generation(number, folder.search.evolution.generations, best, seconds)
    return best
