"""What comes out of a search: the exported model and the report."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from mergelib.card import model_card
from mergelib.files import write_json, write_text
from mergelib.ledger import account, finished_as
from mergelib.merging.export import export_models
from mergelib.report import Result, render_report
from mergelib.runs import Run
from mergelib.stopping import reason_to_stop
from mergelib.workbench import total_items


@task(task_run_name="export", cache_policy=NO_CACHE)
def export(run: str) -> str:
    """Merge the winner, or the front's members, once more and write them as Hugging Face folders.

    Returns:
        The winner's folder, or the one that holds the front's.
    """
    home = Run(Path(run))
    bench = home.workbench()
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in home.table("finalists.parquet").to_pylist():
        if row["role"] == "winner":
            rows.setdefault(row["model"], []).append(row)
    one = not home.search.front
    models = {
        "" if one else model[:12]: (own[0]["recipe"], model_card(bench, own))
        for model, own in rows.items()
    }
    folder = home.path("winner" if one else "front")
    export_models(bench, models, folder)
    return str(folder)


@task(task_run_name="publish", cache_policy=NO_CACHE)
def publish(run: str) -> str:
    """Write the ledger and the report; returns the report's place."""
    home = Run(Path(run))
    bench = home.workbench()
    ledger = account(home.events(), total_items(bench.benchmarks.values()))
    ledger["stopped"] = reason_to_stop(home)
    home.gather_responses()
    result = Result(home, ledger)
    write_text(home.path("picture.svg"), result.picture)
    write_text(home.path("report.html"), render_report(result))
    write_json(home.path("ledger.json"), {**ledger, "finished_as": finished_as(home)})
    return str(home.path("report.html"))
