"""What few items a candidate save, and what they cost in score, against all items a candidate.

    python -m benchmarks.saving [--search data/searches/zoo-ja.yaml] [--pool 1500] [--fresh 1000]
        [--candidates 400] [--population 4] [--items 30 20 10] [--full 3] [--seeds 3]
        [--first-seed 0] --store DIR [--json FILE]

The shipped search on a larger benchmark, drawn anew into `DIR/benchmarks`: once with
`fitness.estimator: full`, where each candidate answers the whole pool, and once for each of
`--items` with the default estimator. `fresh_score` is the winner's on items that the search never
used. The rows at the end are medians over seeds; `times_fewer` is how many times fewer answers the
candidates gave than with `full`, `times_fewer_all` the same with the answers of the endpoints and
of the calibration counted in, and `points` the difference in median fresh score, in points.

`full` runs as many seeds as `--full` says, the others as many as `--seeds`, all from
`--first-seed` on. A store that has some of the runs goes on with the others.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.merges import medians, run_searches
from benchmarks.record import report
from mergelib.zoo.benchmarks import write_items
from mergelib.zoo.family import SHIPPED_SEED, training_prompts

_BENCHMARKS = Path("data/benchmarks")


def draw_benchmark(folder: Path, pool: int, fresh: int) -> Path:
    """Write the zoo's benchmarks with more items, unless they are there.

    Args:
        folder: where the task files and `items` go; made.
        pool: items of the search.
        fresh: items of the final comparison.

    Returns:
        The Japanese task's file.
    """
    if not folder.exists():
        shutil.copytree(_BENCHMARKS, folder)
        splits = {"search": pool, "fresh": fresh}
        write_items(folder / "items", SHIPPED_SEED, training_prompts(), splits)
    return folder / "zoo_ja.yaml"


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians of each way, and what it saves and costs against `full`."""
    middle = medians(rows)
    full = next((row for row in middle if row["algorithm"] == "full"), None)
    if full is None:
        return middle
    for row in middle:
        row["times_fewer"] = full["answers"] / row["answers"]
        row["times_fewer_all"] = full["answers"] / (row["answers"] + row["answers_before"])
        row["points"] = 100 * (row["fresh_score"] - full["fresh_score"])
    return middle


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--search", type=Path, default=Path("data/searches/zoo-ja.yaml"))
    parser.add_argument("--pool", type=int, default=1500)
    parser.add_argument("--fresh", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=400)
    parser.add_argument("--population", type=int, default=4)
    parser.add_argument("--items", nargs="*", type=int, default=[30, 20, 10])
    parser.add_argument("--full", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    benchmark = draw_benchmark(given.store / "benchmarks", given.pool, given.fresh)
    own = f"objectives.0.benchmark={benchmark.resolve()}"
    few = {f"items-{items}": (own, f"fitness.items={items}") for items in given.items}
    full = {"full": (own, "fitness.estimator=full")}
    budget = {"population": given.population, "candidates": given.candidates}
    rows: list[dict[str, Any]] = []
    for ways, seeds in ((few, given.seeds), (full, given.full)):
        numbers = range(given.first_seed, given.first_seed + seeds)
        for row in run_searches(given.search, ways, numbers, given.store, **budget):
            rows.append(row)
            # A search takes minutes: what is measured is written at once.
            report("saving", rows, given.json, shown=False)
    report("saving", rows, None)
    report("saving, medians", compared(rows), None)


if __name__ == "__main__":
    main()
