"""What a search has cost, and what it would have cost to let every model answer every item."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from mergelib.files import read_json
from mergelib.journal import Journal, journal_of
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


def spent_by(run: Run) -> dict[str, Any]:
    """What `spent` says of a run's journal, for the price of what is new in it.

    A search asks after each generation.
    """
    return _running(journal_of(run.path("journal.jsonl"))).read_on()


@lru_cache(maxsize=1)
def _running(journal: Journal) -> "_Running":
    return _Running(journal)


class _Running:
    """The sums of `spent`, carried on as a journal grows."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._read = journal, 0
        self._costs: dict[str, list[Any] | None] = {}
        self._sums: list[Any] = [0] * len(COSTS)

    def read_on(self) -> dict[str, Any]:
        """The sums, with what the journal holds by now."""
        for event in self._journal.events[self._read :]:
            self._add(event["key"], event)
        self._read = len(self._journal.events)
        return dict(zip(COSTS, self._sums, strict=True))

    def _add(self, key: str, event: Mapping[str, Any]) -> None:
        costs = [event[cost] for cost in COSTS]
        if key not in self._costs:
            counts = event.get("stage", "search") not in _OF_THE_END
            self._costs[key] = costs if counts else None
            if counts:
                self._sums = [a + b for a, b in zip(self._sums, costs, strict=True)]
        elif self._costs[key] not in (None, costs):
            self._costs[key] = costs
            counted = [known for known in self._costs.values() if known is not None]
            self._sums = [sum(column) for column in zip(*counted, strict=True)]


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
    """Whether a run has its models and its report, on all generations and finalists there are."""
    exported = "front" if run.search.front else "winner"
    if not run.has("report.html", "ledger.json", "finalists.parquet", exported):
        return False
    return bool(read_json(run.path("ledger.json")).get("finished_as") == finished_as(run))
