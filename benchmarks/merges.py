"""Whole searches for merges, for `benchmarks.search`: the same search in several ways, by seeds."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.server import configure
from mergelib.files import read_json
from mergelib.finalists import front_hypervolume
from mergelib.runs import Run
from mergelib.search_file import load_search

_SEARCHING = ("search", "rung", "challengers")
"""What the stages of the ledger in which candidates answer begin with."""

_PREPARING = ("endpoints", "calibration")
"""The stages before the first candidate."""


WAYS: dict[str, tuple[str, ...]] = {
    "default": (),
    "random": ("evolution.algorithm=random",),
    "cma_es": ("evolution.algorithm=cma_es",),
    "same-items": ("fitness.renew=0",),
    "racing": ("fitness.racing=true",),
    "ahead": ("evolution.ahead=1",),
    "ahead-3": ("evolution.ahead=3",),
    "informative": ("fitness.selection=informative",),
    "mean": ("fitness.estimator=mean",),
    "full": ("fitness.estimator=full",),
    "nsga2": ("evolution.algorithm=nsga2",),
    "mo_cma_es": ("evolution.algorithm=mo_cma_es",),
    "bayesian": ("evolution.algorithm=bayesian",),
    "weighted": (
        "evolution.algorithm=cma_es",
        "objectives.0.weight=1",
        "objectives.1.weight=1",
    ),
}
"""What each way overrides in the search file; `default` is the file as it is."""


def run_searches(
    file: Path,
    ways: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    store: Path,
    *,
    population: int,
    candidates: int,
) -> Iterator[dict[str, Any]]:
    """Run a search file in several ways.

    Args:
        file: the search file.
        ways: what each overrides in the file, by its name, such as some of `WAYS`.
        seeds: each way is run with each.
        store: the runs' store, which they share: what one has answered no other answers again.
        population: candidates in a generation.
        candidates: in all; rounded down to whole generations.

    Yields:
        A row for each run, see `outcome`.
    """
    configure(store)
    # Prefect reads its settings when it is first imported: not before this line.
    from flows.evolve import evolve

    budget = [
        f"evolution.population={population}",
        f"evolution.generations={candidates // population}",
    ]
    for seed in seeds:
        for way, overrides in ways.items():
            own = [*overrides, *budget, f"seed={seed}", f"name={way}-{seed}"]
            run = Run(Path(evolve(load_search(file, own), str(store))))
            yield {"search": file.stem, "algorithm": way, "seed": seed, **outcome(run)}


def outcome(run: Run) -> dict[str, Any]:
    """What came of a finished run: budgets, and scores on fresh items.

    `answers` are the candidates', `answers_before` those of the endpoints and of the calibration,
    `answers_all` all that the search has cost, its end included.

    `hypervolume` is what all finalists dominate on the fresh items, the winner's or the front's
    members with the others; None with one objective.
    """
    ledger = read_json(run.path("ledger.json"))
    table = run.table("finalists.parquet")
    rows = table.to_pylist()
    names = list(dict.fromkeys(row["benchmark"] for row in rows))
    stages = ledger["stages"].items()
    searching = [cost for stage, cost in stages if stage.startswith(_SEARCHING)]
    preparing = [cost for stage, cost in stages if stage in _PREPARING]

    def best(role: str) -> float | None:
        first = [
            row["score"] for row in rows if row["role"] == role and row["benchmark"] == names[0]
        ]
        return max(first, default=None)

    return {
        "items": None if run.search.fitness.estimator == "full" else run.search.fitness.items,
        "candidates": sum(run.generation(n).num_rows for n in range(run.finished_generations())),
        "answers": sum(cost["items"] for cost in searching),
        "answers_before": sum(cost["items"] for cost in preparing),
        "answers_all": ledger["spent"]["items"],
        "fresh_score": best("winner"),
        "uniform": best("uniform"),
        "endpoint": best("endpoint"),
        "hypervolume": front_hypervolume(table, names, ["winner", "finalist"])
        if len(names) > 1
        else None,
        "seconds": sum(cost["seconds"] for cost in searching),
    }


def medians(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each way: medians over the seeds."""
    numbers = (
        "answers",
        "answers_before",
        "answers_all",
        "fresh_score",
        "uniform",
        "endpoint",
        "hypervolume",
    )
    of_ways: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        of_ways.setdefault(str(row["algorithm"]), []).append(row)
    told = []
    for way, own in of_ways.items():
        known = {n: [float(row[n]) for row in own if row[n] is not None] for n in numbers}
        middle = {n: statistics.median(values) if values else None for n, values in known.items()}
        told.append({"algorithm": way, "seeds": len(own), **middle})
    return told
