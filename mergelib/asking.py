"""What a generation is asked from: a state, and the generations that it has not been told of."""

from collections.abc import Iterable
from typing import Any

from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.finalists import best_of
from mergelib.genes import Genome
from mergelib.judging import judge_of
from mergelib.path_space import PathSpace
from mergelib.recipes import Recipe
from mergelib.runs import Run
from mergelib.space import Space

_FROM_SWEEP = 4
"""How many uniform merges the first population may hold where several objectives are traded off."""


def state_before(run: Run, generation: int) -> Any:
    """The optimiser's state once all generations before this one have been told."""
    if generation > 0:
        return run.state(generation - 1)
    search = run.search
    bench = run.workbench()
    space = bench.space
    # The best of the uniform merges; the best trade-offs, if there are several objectives. They
    # have been answered already and cost nothing.
    count = _FROM_SWEEP if search.front else 1
    sweep = best_of(run.table("uniform.parquet"), judge_of(run, 0), count, "uniform", run.here)
    best = [space.encode(Recipe.from_yaml(uniform.reference)) for uniform in sweep]
    # The best uniform merge may be the even one: a place in the population is worth more.
    first = distinct(space, [*best, *space.first()])
    algorithm = ALGORITHMS[search.evolution.algorithm]
    return algorithm.start(space.dimension, search.evolution.population, search.seed, first)


def distinct(space: Space | PathSpace, genomes: Iterable[Genome]) -> list[Genome]:
    """The first genome of each recipe.

    A recipe that is encoded may have another genome than it was decoded from: steps, and genes that
    nothing reads, are encoded at their middle.
    """
    by_recipe: dict[str, Genome] = {}
    for genome in genomes:
        by_recipe.setdefault(space.decode(genome).to_yaml(), list(genome))
    return list(by_recipe.values())


def genomes_of(run: Run, generation: int) -> list[Genome]:
    """The genomes of a generation, at most `evolution.ahead` after the first unfinished one.

    The last `evolution.ahead` generations before it count as pending even if they have been told
    by now: what is asked is the same whether it is asked early or late, or again after a resume.
    """
    evolution, done = run.search.evolution, run.finished_generations()
    algorithm = ALGORITHMS[evolution.algorithm]
    genomes: dict[int, list[Genome]] = {}
    for number in range(max(0, min(done, generation) - evolution.ahead), generation + 1):
        if number < min(done, generation):
            genomes[number] = run.generation(number)["genome"].to_pylist()
            continue
        told = max(0, number - evolution.ahead)
        pending = [genomes[earlier] for earlier in range(told, number)]
        genomes[number] = algorithm.ask(state_before(run, told), pending)
    return genomes[generation]
