"""What comes out of a search: the exported model, the report, artifacts in Prefect's UI."""

import math
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from mergelib.card import model_card
from mergelib.files import write_json, write_text
from mergelib.ledger import account, finished_as
from mergelib.merging.export import export_models
from mergelib.report import Result, render_report, summary_markdown
from mergelib.runs import Run
from mergelib.stopping import reason_to_stop
from mergelib.workbench import total_items


def _artifact_key(run: Run, what: str) -> str:
    """Artifact keys are global in Prefect, and lower case with dashes."""
    name = "".join(c if c.isalnum() else "-" for c in run.folder.name.lower())
    return f"{name}-{what}"


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
    """Write the ledger and the report, and show the result in Prefect's UI; returns the report."""
    home = Run(Path(run))
    bench = home.workbench()
    ledger = account(home.events(), total_items(bench.benchmarks.values()))
    ledger["stopped"] = reason_to_stop(home)
    home.gather_responses()
    result = Result(home, ledger)
    write_text(home.path("picture.svg"), result.picture)
    write_text(home.path("report.html"), render_report(result))
    write_json(home.path("ledger.json"), {**ledger, "finished_as": finished_as(home)})
    create_markdown_artifact(
        summary_markdown(result), key=_artifact_key(home, "result"), description="Result"
    )
    return str(home.path("report.html"))


@task(task_run_name="show generation {number}", cache_policy=NO_CACHE)
def show_generation(run: str, number: int) -> None:
    """Show a generation's candidates as a table in Prefect's UI."""
    home = Run(Path(run))
    table = home.generation(number).drop_columns(["genome", "recipe", "generation"])
    rows = sorted(table.to_pylist(), key=lambda row: _worst_last(row["fitness"]))
    create_table_artifact(
        [{key: _short(value) for key, value in row.items()} for row in rows],
        key=_artifact_key(home, "population"),
        description=f"Generation {number}, the best first",
    )


def _worst_last(fitness: float | None) -> float:
    return math.inf if fitness is None else -fitness


def _short(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    return value[:12] if isinstance(value, str) and len(value) == 64 else value
