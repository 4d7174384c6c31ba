"""Estimate and select: candidates on their anchor items, finalists on further ones."""

import itertools
from pathlib import Path

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from mergelib import finalists
from mergelib.errors import SearchError
from mergelib.finalists import Contender
from mergelib.genes import Genome
from mergelib.incumbents import with_incumbent
from mergelib.judging import candidates_of, judge_of
from mergelib.racing import comparable
from mergelib.runs import Run
from mergelib.tables import Answered, responses_table


@task(task_run_name="record {stage}", cache_policy=NO_CACHE)
def record(run: str, stage: str, answered: list[Answered]) -> None:
    """Write the responses of one stage of the search."""
    Run(Path(run)).write_table(f"responses/{stage}.parquet", responses_table(answered))


@task(task_run_name="estimate", cache_policy=NO_CACHE)
def estimate(
    run: str, generation: int | None, genomes: list[Genome], answered: list[Answered]
) -> float:
    """Write the table of a generation, or of the uniform merges where it is None.

    Returns:
        The highest fitness in it, of those that got to the end of a race.

    Raises:
        SearchError: every candidate failed; the message has their reasons.
    """
    folder = Run(Path(run))
    space = folder.workbench().space
    stage = "uniform" if generation is None else f"{generation:04d}"
    responses = responses_table(answered)
    # First of all, since the judge may take them into account.
    folder.write_table(f"responses/{stage}.parquet", responses)
    number = -1 if generation is None else generation
    judge = judge_of(folder, number + 1)
    recipes = [space.decode(genome) for genome in genomes]
    table = judge.table(number, genomes, recipes, answered)
    scored = [fitness for fitness in table["fitness"].to_pylist() if fitness is not None]
    if not scored:
        reasons = sorted(set(table["reason"].to_pylist()))
        raise SearchError(f"every candidate of {stage} failed: {'; '.join(reasons)}")
    if generation is None:
        folder.write_table("uniform.parquet", table)
    else:
        folder.write_generation(generation, with_incumbent(folder, judge, table, responses))
    fitness = table["fitness"].to_pylist()
    return float(max(itertools.compress(fitness, comparable(folder.search, table))))


@task(task_run_name="choose finalists", cache_policy=NO_CACHE)
def choose_finalists(run: str, count: int) -> list[Contender]:
    """Who may win, of all generations and by their estimates; smoothed unless a race ranked.

    Args:
        run: the run folder.
        count: how many at most.
    """
    folder = Run(Path(run))
    smooth = not folder.search.ranks_racers
    candidates, judge = candidates_of(folder), judge_of(folder)
    return finalists.best_of(candidates, judge, count, "finalist", folder.here, smooth=smooth)


@task(task_run_name="keep the better half", cache_policy=NO_CACHE)
def keep_better_half(run: str, candidates: list[Contender]) -> list[Contender]:
    """Of several objectives' finalists the better half, by all that they have answered so far."""
    folder = Run(Path(run))
    stages = [f"{number:04d}" for number in range(folder.finished_generations())]
    responses = [folder.table(f"responses/{stage}.parquet") for stage in [*stages, "deciding"]]
    models = [candidate.model for candidate in candidates]
    judge = judge_of(folder)
    fitness = judge.fitness(pa.concat_tables(responses), models, beyond_anchors=True)
    return finalists.better_half(candidates, fitness)


@task(task_run_name="score finalists", cache_policy=NO_CACHE)
def score_finalists(
    run: str, contenders: list[Contender], winner: str | None, fresh: list[Answered]
) -> None:
    """Write finalists.parquet.

    Args:
        run: the run folder.
        contenders: base, endpoints, uniform merge and finalists.
        winner: the digest of the decided winner; None to take the front on the fresh items.
        fresh: the contenders' answers to the fresh items.
    """
    folder = Run(Path(run))
    goals = folder.workbench().goals
    responses = responses_table(fresh)
    if winner is None:
        winners = finalists.front(contenders, responses, goals)
        contenders = finalists.with_uniform(contenders, winners)
    else:
        winners = {winner}
    table = finalists.finalists_table(contenders, winners, responses, goals.names)
    folder.write_table("finalists.parquet", table)
