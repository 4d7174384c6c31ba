"""Evolve: ask the algorithm for genomes, tell it what they were worth."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from mergelib.asking import genomes_of, state_before
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.genes import Genome
from mergelib.history import generations_of
from mergelib.judging import judge_of, merges_before, restated
from mergelib.ledger import spent_by
from mergelib.recalibration import reach, recalibrates
from mergelib.runs import Run
from mergelib.traits import traits_of


@task(task_run_name="ask", cache_policy=NO_CACHE)
def ask(run: str, generation: int) -> list[Genome]:
    """The genomes of a generation."""
    return genomes_of(Run(Path(run)), generation)


@task(task_run_name="tell", cache_policy=NO_CACHE)
def tell(run: str, generation: int) -> None:
    """Write the state after a generation; with it the generation is finished.

    In a race, whose first scores rest on few answers, an algorithm that allows for that is told of
    the merges before the first generation too. Where the responses have changed what is known of
    the items, those and the candidates of the generations before are told once more.
    """
    folder = Run(Path(run))
    search, table = folder.search, folder.generation(generation)
    algorithm = ALGORITHMS[search.evolution.algorithm]
    # Random and Sobol search, whose items are calibrated again too, go by nothing that was told.
    learns = algorithm.traits == "answers"
    again = learns and recalibrates(search)
    judge = judge_of(folder, generation + 1 if again else 0)
    if again:
        before = generations_of(folder)[reach(search, generation).start :]
        table = restated(folder, judge, pa.concat_tables([*before, table]))
    genomes, fitness = table["genome"].to_pylist(), judge.told(table)
    traits = traits_of(algorithm.traits, folder, judge, table)
    of_merges = learns and search.fitness.race is not None and (again or generation == 0)
    if of_merges and traits is not None:
        merges = merges_before(folder, judge)
        # A merge that was asked again in the race may have been dropped before it had answered all.
        known = {tuple(g): n for g, n in zip(merges.genomes, merges.answers[:, 0], strict=True)}
        asked = zip(genomes, traits[:, 0], strict=True)
        rows = [row for row, (g, n) in enumerate(asked) if n >= known.get(tuple(g), 0.0)]
        genomes = [*merges.genomes, *(genomes[row] for row in rows)]
        fitness = np.concatenate([merges.fitness, fitness[rows]])
        traits = np.concatenate([merges.answers, traits[rows]])
    after = algorithm.tell(state_before(folder, generation), genomes, fitness, traits)
    folder.write_state(generation, after, spent_by(folder))
