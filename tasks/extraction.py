"""Extract: the benchmarks' items, rendered as lm-eval renders them, to Parquet."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from mergelib.benchmarks.items import items_table
from mergelib.runs import Run


@task(task_run_name="extract items", cache_policy=NO_CACHE)
def extract(run: str) -> dict[str, int]:
    """Write items.parquet; returns how many items each benchmark has."""
    folder = Run(Path(run))
    benchmarks = folder.workbench().benchmarks
    folder.write_table("items.parquet", items_table(benchmarks.values()))
    return {name: len(benchmark.items) for name, benchmark in benchmarks.items()}
