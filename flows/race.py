"""A generation answers: all anchor items at once, or in a race, rung by rung."""

import math

from flows.progress import progress
from mergelib.fitness import Judge
from mergelib.incumbents import challenger
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


def race(run: Run, judge: Judge, recipes: list[str], generation: int) -> list[Answered]:
    """Let the candidates of a generation answer.

    Args:
        run: the run.
        judge: its judge.
        recipes: the candidates' YAML.
        generation: its number.

    Returns:
        All that each candidate has answered, in the order of the recipes.
    """
    settings = run.search.fitness.race
    parts: list[list[Answered]] = [[] for _ in recipes]
    # A recipe that is there twice races once, so that it cannot be ahead of itself.
    first = {recipe: number for number, recipe in reversed(list(enumerate(recipes)))}
    racers = sorted(first.values()) if settings else list(range(len(recipes)))
    for rung, asked in enumerate(judge.rungs):
        stage = "search" if settings is None else f"rung {rung + 1}"
        questions = [
            Question(
                recipes[individual],
                asked,
                f"{generation + 1}.{individual + 1}" + (f" {stage}" if settings else ""),
                stage,
                f"generation {generation + 1}: candidate {individual + 1}",
            )
            for individual in racers
        ]
        answers = all_answered(run, questions, progress.at)
        for individual, answer in zip(racers, answers, strict=True):
            parts[individual].append(answer)
        if settings is not None:
            so_far = [combined(parts[individual]) for individual in racers]
            fitness = judge.fitness(responses_table(so_far), [one.model for one in so_far])
            racers = [racers[row] for row in survivors(fitness, settings.keep)]
    return [
        combined(own) if own else combined(parts[first[recipe]])._replace(reused=True)
        for own, recipe in zip(parts, recipes, strict=True)
    ]


def challenge(
    run: Run, judge: Judge, recipes: list[str], generation: int, raced: list[Answered]
) -> list[Answered]:
    """Ask the best of a race further items, if it is ahead of the incumbent.

    Args:
        run: the run.
        judge: its judge.
        recipes: the candidates' YAML.
        generation: its number.
        raced: what `race` returned.

    Returns:
        The same with the challenger's further answers.
    """
    if run.search.fitness.race is None:
        return raced
    row = challenger(run, judge, generation, raced)
    further = judge.further()
    if row is None or not any(further.values()):
        return raced
    label, what = f"{generation + 1}.{row + 1} challenger", "the best meets the incumbent"
    question = Question(recipes[row], further, label, "challengers", what)
    (more,) = all_answered(run, [question], lambda _: None)
    if more.evaluation["status"] != "ok":
        return raced
    return [*raced[:row], combined([raced[row], more]), *raced[row + 1 :]]
