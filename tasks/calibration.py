"""Estimate: calibrate the item banks and choose the anchor items."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from mergelib.fitness import calibrate_banks
from mergelib.runs import Run


@task(task_run_name="calibrate", cache_policy=NO_CACHE)
def calibrate(run: str) -> int:
    """Write bank.parquet from the responses of the preparation; returns how many items it has."""
    folder = Run(Path(run))
    banks = calibrate_banks(folder.workbench(), folder.table("responses/prepare.parquet"))
    folder.write_table("bank.parquet", banks)
    return int(banks.num_rows)
