"""Whole searches for merges, for `benchmarks.search`: the same search in several ways, by seeds."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.server import configure
from mergelib.files import read_json
from mergelib.runs import Run
from mergelib.search_file import load_search

_SEARCHING = ("search", "rung", "challengers")
"""What the stages of the ledger in which candidates answer begin with."""


def run_searches(
    file: Path, ways: Mapping[str, Sequence[str]], seeds: Sequence[int], store: Path
) -> Iterator[dict[str, Any]]:
    """Run a search file in several ways.

    Args:
        file: the search file.
        ways: what each way overrides in it, "key=value" each, by the way's name.
        seeds: each way is run with each.
        store: the runs' store, which they share: what one has answered no other answers again.

    Yields:
        A row for each run: the winner's score on fresh items, that of the best uniform merge, of
        the best endpoint; of several objectives the hypervolume; and what it answered.
    """
    configure(store)
    from flows.evolve import evolve

    for seed in seeds:
        for way, overrides in ways.items():
            name = f"{way}-{seed}"
            search = load_search(file, [*overrides, f"seed={seed}", f"name={name}"])
            run = Run(Path(evolve(search, str(store))))
            yield {"search": file.stem, "algorithm": way, "seed": seed, **outcome(run)}


def outcome(run: Run) -> dict[str, Any]:
    """What came of a finished run."""
    from mergelib.finalists import front_hypervolume

    ledger = read_json(run.path("ledger.json"))
    table = run.table("finalists.parquet")
    rows = table.to_pylist()
    names = list(dict.fromkeys(row["benchmark"] for row in rows))
    searching = [
        cost for stage, cost in ledger["stages"].items() if stage.startswith(_SEARCHING)
    ]
    told: dict[str, Any] = {
        "items": run.search.fitness.items,
        "candidates": sum(run.generation(n).num_rows for n in range(run.finished_generations())),
        "answers": sum(cost["items"] for cost in searching),
        "answers_all": ledger["spent"]["items"],
        "seconds": sum(cost["seconds"] for cost in searching),
    }
    for role in ("winner", "uniform", "endpoint"):
        scores = [row["score"] for row in rows if row["role"] == role]
        told["fresh_score" if role == "winner" else role] = max(scores, default=None)
    if len(names) > 1:
        told["hypervolume"] = front_hypervolume(table, names, ["winner"])
        told["hypervolume_endpoints"] = front_hypervolume(table, names, ["endpoint"])
    return told


def medians(rows: Sequence[Mapping[str, Any]], what: str) -> dict[str, float]:
    """The median over the seeds of one column, by way."""
    by_way: dict[str, list[float]] = {}
    for row in rows:
        if row.get(what) is not None:
            by_way.setdefault(str(row["algorithm"]), []).append(float(row[what]))
    return {way: statistics.median(values) for way, values in by_way.items()}
