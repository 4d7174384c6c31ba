"""Candidates that answer one item each, for `benchmarks.orchestration`.

In a module of its own and with plain parameters, as the flows of a search are: with each task a
flow is sent to the worker, with all that its function refers to.
"""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from prefect import flow

from mergelib.runs import Run
from tasks.side_by_side import Question, all_answered


class Took(NamedTuple):
    """Seconds of wall that a round took, and that its workers merged and answered."""

    wall: float
    spent: float


def questions_of(run: Run, first: int, last: int) -> list[Question]:
    """Random candidates by their numbers, each with the first item of each benchmark."""
    bench = run.workbench()
    asked = {name: [b.pool("search")[0].item_id] for name, b in bench.benchmarks.items()}
    genomes = np.random.default_rng(0).random((last, bench.space.dimension))[first:]
    recipes = [bench.space.decode(genome.tolist()).to_yaml() for genome in genomes]
    return [
        Question(recipe, asked, str(n), "search", "") for n, recipe in enumerate(recipes, first)
    ]


@flow(persist_result=False)
def round_of(run: str, first: int, last: int) -> Took:
    """Let candidates answer."""
    home = Run(Path(run))
    questions = questions_of(home, first, last)
    since = time.perf_counter()
    answers = all_answered(home, questions, lambda _: None)
    wall = time.perf_counter() - since
    done = [answer.evaluation for answer in answers if not answer.reused]
    return Took(wall, sum(one["seconds_merge"] + one["seconds_answer"] for one in done))
