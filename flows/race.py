"""A generation answers: all anchor items at once, or in a race, rung by rung."""

import math
from collections.abc import Iterator

from flows.progress import progress
from mergelib.evaluation import Asked
from mergelib.fitness import Judge
from mergelib.incumbents import challenger
from mergelib.judging import judge_of
from mergelib.racing import rung_sizes, survivors
from mergelib.runs import Run
from mergelib.search import Search
from mergelib.tables import Answered, combined, responses_table
from tasks.side_by_side import Question, all_answered


def evaluations_in(search: Search) -> int:
    """How many evaluations a generation needs, the incumbent's challenger not counted."""
    population, race = search.evolution.population, search.fitness.race
    if race is None:
        return population
    rungs = range(len(rung_sizes(search.fitness.items, race)))
    return sum(math.ceil(population * race.keep**rung) for rung in rungs)


def opening(run: Run, judge: Judge, recipes: list[str], generation: int) -> list[Question]:
    """What the candidates of a generation are asked first, and whatever comes of others."""
    return _questions(
        run, recipes, _racers(run, recipes), generation, 0, judge.asked_in(generation)[0]
    )


def race(
    run: Run, judge: Judge, recipes: list[str], generation: int, later: Iterator[Question]
) -> list[Answered]:
    """Let the candidates of a generation answer.

    Args:
        run: the run.
        judge: its judge, as it was before the first generation: it chooses the items.
        recipes: the candidates' YAML.
        generation: its number; those before it are finished.
        later: what idle workers are asked, see `tasks.side_by_side.all_answered`.

    Returns:
        All that each candidate has answered, in the order of the recipes.
    """
    settings = run.search.fitness.race
    parts: list[list[Answered]] = [[] for _ in recipes]
    racers = _racers(run, recipes)
    for rung, asked in enumerate(judge.asked_in(generation)):
        questions = _questions(run, recipes, racers, generation, rung, asked)
        answers = all_answered(run, questions, progress.at, later)
        for individual, answer in zip(racers, answers, strict=True):
            parts[individual].append(answer)
        if settings is not None:
            so_far = [combined(parts[individual]) for individual in racers]
            responses, models = responses_table(so_far), [one.model for one in so_far]
            fitness = judge_of(run, generation).fitness(responses, models)
            racers = [racers[row] for row in survivors(fitness, settings.keep)]
    first = _first_of_each(recipes)
    return [
        combined(own) if own else combined(parts[first[recipe]])._replace(reused=True)
        for own, recipe in zip(parts, recipes, strict=True)
    ]


def _racers(run: Run, recipes: list[str]) -> list[int]:
    """Who begins: in a race a recipe that is there twice only once, not to be ahead of itself."""
    if run.search.fitness.race is None:
        return list(range(len(recipes)))
    return sorted(_first_of_each(recipes).values())


def _first_of_each(recipes: list[str]) -> dict[str, int]:
    return {recipe: number for number, recipe in reversed(list(enumerate(recipes)))}


def _questions(
    run: Run, recipes: list[str], racers: list[int], generation: int, rung: int, asked: Asked
) -> list[Question]:
    races = run.search.fitness.race is not None
    stage = f"rung {rung + 1}" if races else "search"
    return [
        Question(
            recipes[individual],
            asked,
            f"{generation + 1}.{individual + 1}" + (f" {stage}" if races else ""),
            stage,
            f"generation {generation + 1}: candidate {individual + 1}",
        )
        for individual in racers
    ]


def challenge(
    run: Run,
    judge: Judge,
    recipes: list[str],
    generation: int,
    raced: list[Answered],
    later: Iterator[Question],
) -> list[Answered]:
    """Ask the best of a race that ranks further items, if it is ahead of the incumbent.

    Args:
        run: the run.
        judge: its judge.
        recipes: the candidates' YAML.
        generation: its number.
        raced: what `race` returned.
        later: as for `race`.

    Returns:
        The same with the challenger's further answers.
    """
    if not run.search.ranks_racers:
        return raced
    row = challenger(run, judge, generation, raced)
    further = judge.further()
    if row is None or not any(further.values()):
        return raced
    label, what = f"{generation + 1}.{row + 1} challenger", "the best meets the incumbent"
    question = Question(recipes[row], further, label, "challengers", what)
    (more,) = all_answered(run, [question], lambda _: None, later)
    if more.evaluation["status"] != "ok":
        return raced
    return [*raced[:row], combined([raced[row], more]), *raced[row + 1 :]]
