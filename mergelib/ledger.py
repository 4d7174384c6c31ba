"""What a search has cost, and what it would have cost to let every model answer every item."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mergelib.files import read_json
from mergelib.runs import Run

_OF_THE_END = ("deciding", "fresh")
"""Stages that come after the last generation: they stop no search that is extended."""

COSTS = ("items", "tokens", "flops", "seconds")


def account(events: Iterable[Mapping[str, Any]], items_of_all_benchmarks: int) -> dict[str, Any]:
    """Sum up a run's journal.

    Args:
        events: the journal: for each evaluation finished or reused its key, model, stage, costs,
            and whether it was reused.
        items_of_all_benchmarks: items that one model answers in a full evaluation.

    Returns:
        `spent`: the cost of all different evaluations that the search rests on, each counted once
        however often the run was killed or repeated; `stages`: the same by the stage that first
        needed them; `answered` and `reused`: how many evaluations were done in this run, and how
        many found done; `answered_twice`: evaluations that were done although they had been
        finished (always 0); `full_evaluation`: the same models on all items, its costs at the
        average cost of an item; `times_less`: the one over the other, in items.
    """
    events = list(events)
    answered = Counter(event["key"] for event in events if not event["reused"])
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for event in _each_once(events):
        stages.setdefault(event.get("stage", "search"), []).append(event)
    different = [event for of_stage in stages.values() for event in of_stage]
    cost = _sum(different)
    models = len({event["model"] for event in different if event["items"]})
    full_items = models * items_of_all_benchmarks
    factor = full_items / cost["items"] if cost["items"] else None
    full = {name: cost[name] * factor if factor else 0 for name in COSTS}
    return {
        "spent": cost,
        "stages": {
            stage: {"evaluations": len(of_stage), **_sum(of_stage)}
            for stage, of_stage in stages.items()
        },
        "models": models,
        "evaluations": len(different),
        "answered": len(answered),
        "answered_twice": sum(times - 1 for times in answered.values()),
        "reused": sum(event["reused"] for event in events),
        "full_evaluation": {**full, "items": full_items},
        "times_less": factor,
    }


def spent(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The cost of all different evaluations so far, those of a search's end left out."""
    return _sum(event for event in _each_once(events) if event["stage"] not in _OF_THE_END)


def _each_once(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last event of each evaluation, with the stage of its first, in the order of the firsts.

    An evaluation that is reused later was needed for what came first.
    """
    last: dict[str, Mapping[str, Any]] = {}
    for event in events:
        first = last.get(event["key"], event)
        last[event["key"]] = {**event, "stage": first.get("stage", "search")}
    return list(last.values())


def _sum(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    events = list(events)
    return {cost: sum(event[cost] for event in events) for cost in COSTS}


def finished_as(run: Run) -> dict[str, int]:
    """What a report rests on: a run with more generations or other finalists is finished anew."""
    search = run.search
    return {
        "generations": run.finished_generations(),
        "finalists": search.finalists,
        "deciding_items": search.deciding_items,
    }


def is_reported(run: Run) -> bool:
    """Whether a run has its report, on all generations and finalists that there are."""
    if not run.has("report.html", "ledger.json", "finalists.parquet"):
        return False
    return bool(read_json(run.path("ledger.json")).get("finished_as") == finished_as(run))
