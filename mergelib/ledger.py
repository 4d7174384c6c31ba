"""What a search has cost, and what it would have cost to let every model answer every item."""

from collections.abc import Iterable, Mapping
from typing import Any

from mergelib.files import read_json
from mergelib.runs import Run
from mergelib.search import Search

COSTS = ("items", "tokens", "flops", "seconds")


def account(events: Iterable[Mapping[str, Any]], items_of_all_benchmarks: int) -> dict[str, Any]:
    """Sum up a run's journal.

    Args:
        events: the journal: for each evaluation finished or reused its key, model, costs, and
            whether it was reused.
        items_of_all_benchmarks: items that one model answers in a full evaluation.

    Returns:
        `spent`: the cost of all different evaluations that the search rests on, each counted once
        however often the run was killed or repeated; `answered` and `reused`: how many evaluations
        were done in this run, and how many found done; `answered_twice`: evaluations that were
        done although they had been finished (always 0); `full_evaluation`: the same models on all
        items, its costs at the average cost of an item; `times_less`: the one over the other, in
        items.
    """
    costs: dict[str, Mapping[str, Any]] = {}
    answered: dict[str, int] = {}
    reused = 0
    for event in events:
        key = event["key"]
        costs[key] = event
        if event["reused"]:
            reused += 1
        else:
            answered[key] = answered.get(key, 0) + 1
    spent = {cost: sum(event[cost] for event in costs.values()) for cost in COSTS}
    models = len({event["model"] for event in costs.values() if event["items"]})
    full_items = models * items_of_all_benchmarks
    factor = full_items / spent["items"] if spent["items"] else None
    full = {cost: spent[cost] * factor if factor else 0 for cost in COSTS}
    return {
        "spent": spent,
        "models": models,
        "evaluations": len(costs),
        "answered": len(answered),
        "answered_twice": sum(times - 1 for times in answered.values()),
        "reused": reused,
        "full_evaluation": {**full, "items": full_items},
        "times_less": factor,
    }


def finished_as(search: Search) -> dict[str, int]:
    """The settings that may be raised later: a finished run with others is finished anew."""
    return {
        "generations": search.evolution.generations,
        "finalists": search.finalists,
        "deciding_items": search.deciding_items,
    }


def is_finished(run: Run) -> bool:
    """Whether a run has its report, for the generations and finalists that its search asks for."""
    if not run.has("report.html", "ledger.json", "finalists.parquet"):
        return False
    return bool(read_json(run.path("ledger.json")).get("finished_as") == finished_as(run.search))
