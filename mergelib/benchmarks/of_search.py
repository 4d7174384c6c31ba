"""All benchmarks of a search, objectives' and constraints', each under a name of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from mergelib.benchmarks.chat import ChatTemplate
from mergelib.benchmarks.contamination import public_test_data
from mergelib.benchmarks.items import Benchmark, open_benchmark
from mergelib.errors import InputError
from mergelib.search import Search
from mergelib.sections.objectives import BenchmarkChoice, Constraint

_SAID_BY_OBJECTIVE = (
    "name",
    "metric",
    "filter",
    "scorer",
    "language",
    "system_prompt",
    "chat_template",
    "multiturn",
    "search_items",
    "fresh_items",
)


class Chosen(NamedTuple):
    """What a search asks.

    Attributes:
        benchmarks: by name, the objectives' in their order, then the constraints'.
        limits: the constraints by the name of their benchmark.
        test_sets: the public test data that benchmarks are searched on, by name.
        notes: what is no obstacle and yet worth telling, a line each.
    """

    benchmarks: dict[str, Benchmark]
    limits: dict[str, Constraint]
    test_sets: dict[str, str]
    notes: list[str]


def open_benchmarks(search: Search, chat: Callable[[str], ChatTemplate]) -> Chosen:
    """Open the benchmarks that a search names.

    A constraint on an objective's benchmark goes by that objective, and is not opened again.

    Args:
        search: the search file.
        chat: gives the models' chat template; takes the search file's key.

    Raises:
        InputError: one of them cannot be opened, has too few items, or is public test data, which
            the search does not allow.
    """
    chosen: dict[str, BenchmarkChoice] = {
        f"objectives.{number}": objective for number, objective in enumerate(search.objectives)
    }
    shared = {}
    for number, constraint in enumerate(search.constraints):
        key = f"constraints.{number}"
        objective = _objective_of(constraint, search, key)
        if objective is None:
            chosen[key] = constraint
        shared[key] = key if objective is None else f"objectives.{objective}"
    opened = [open_benchmark(choice, key, search.seed, chat) for key, choice in chosen.items()]
    names = dict(zip(chosen, told_apart(opened, list(chosen)), strict=True))
    benchmarks = {
        name: replace(benchmark, name=name)
        for name, benchmark in zip(names.values(), opened, strict=True)
    }
    for name, benchmark in benchmarks.items():
        available = len(benchmark.pool("search"))
        if search.fitness.items > available:
            raise InputError(
                f"fitness.items: {search.fitness.items}, but {name} has {available} items for the "
                "search"
            )
    limits = {
        names[place]: constraint
        for place, constraint in zip(shared.values(), search.constraints, strict=True)
    }
    test_sets = {}
    for (key, choice), (name, benchmark) in zip(chosen.items(), benchmarks.items(), strict=True):
        found = public_test_data(benchmark, choice.reference, key, search.allow_test_sets)
        if found is not None:
            test_sets[name] = found
    notes = [note for benchmark in opened for note in benchmark.notes]
    notes += [f"{n} is searched on public test data: {found}" for n, found in test_sets.items()]
    return Chosen(benchmarks, limits, test_sets, notes)


def _objective_of(constraint: Constraint, search: Search, key: str) -> int | None:
    """The number of the objective that a constraint limits; None where its benchmark is another."""
    same = [n for n, o in enumerate(search.objectives) if o.benchmark == constraint.benchmark]
    if not same:
        return None
    for own in _SAID_BY_OBJECTIVE:
        if getattr(constraint, own) != Constraint.model_fields[own].default:
            raise InputError(
                f"{key}.{own}: {constraint.reference} is an objective, which says so; leave it out "
                "here"
            )
    if len(same) > 1:
        raise InputError(
            f"{key}.benchmark: {constraint.reference} is {len(same)} objectives, and which of them "
            "is meant cannot be said; give one of them a benchmark of its own"
        )
    return same[0]


def told_apart(benchmarks: Sequence[Benchmark], keys: Sequence[str]) -> list[str]:
    """A name for each benchmark: its own, with the metric where that is not enough, and so on.

    Args:
        benchmarks: in the order of the search file.
        keys: the search file's key of each, for error messages.

    Raises:
        InputError: two cannot be told apart.
    """
    names = [benchmark.name for benchmark in benchmarks]
    further = [
        [benchmark.metric for benchmark in benchmarks],
        [benchmark.filter for benchmark in benchmarks],
        [benchmark.language.language if benchmark.language else "any" for benchmark in benchmarks],
    ]
    for words in further:
        names = [
            f"{name}.{word}" if names.count(name) > 1 else name
            for name, word in zip(names, words, strict=True)
        ]
    for number, name in enumerate(names):
        if name in names[:number]:
            benchmark = benchmarks[number].name
            raise InputError(
                f"{keys[number]}.benchmark: the task {benchmark} is named twice; give one of them "
                "a name"
            )
    return names


def alike(benchmarks: Mapping[str, Benchmark]) -> dict[str, str]:
    """For each benchmark the first one whose search items ask the same: itself, as a rule.

    Args:
        benchmarks: by name.
    """
    first: dict[tuple[str, ...], str] = {}
    return {
        name: first.setdefault(tuple(item.asked for item in benchmark.pool("search")), name)
        for name, benchmark in benchmarks.items()
    }
