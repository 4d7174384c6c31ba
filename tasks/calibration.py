"""Estimate: calibrate the item banks and choose the anchor items."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from mergelib.calibration import abilities, calibrate_banks, fit_intervals
from mergelib.runs import Run


@task(task_run_name="calibrate", cache_policy=NO_CACHE)
def calibrate(run: str) -> int:
    """Write the bank and what belongs to it; returns how many items it has."""
    folder = Run(Path(run))
    bench, responses = folder.workbench(), folder.table("responses/prepare.parquet")
    banks = calibrate_banks(bench, responses)
    folder.write_json("intervals.json", fit_intervals(bench, banks, responses))
    folder.write_table("abilities.parquet", abilities(bench, banks, responses))
    folder.write_table("bank.parquet", banks)
    return int(banks.num_rows)
