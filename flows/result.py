"""What the command prints at a search's end, and what `mergeflow status` prints at any time."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from mergelib.errors import InputError
from mergelib.files import read_json
from mergelib.goals import told
from mergelib.report import Result, percent, signed
from mergelib.runs import Run
from mergelib.stopping import is_finished


def print_result(run: Run, console: Console) -> None:
    """Print a finished run's verdict, table and cost, and where to look further."""
    result = Result(run, read_json(run.path("ledger.json")))
    for name in result.names:
        items = max(row["items"] for row in result.rows if row["benchmark"] == name)
        title = f"{name}: % correct on {items} fresh items"
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in ("model", "score", "95 % interval", "to the best endpoint"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for row in result.rows:
            if row["benchmark"] != name or row["role"] == "finalist":
                continue
            table.add_row(
                result.named(row),
                percent(row["score"]),
                f"{percent(row['low'])} to {percent(row['high'])}",
                f"{signed(row['diff'])} ({signed(row['diff_low'])} to {signed(row['diff_high'])})",
                style="bold" if row["role"] == "winner" else None,
            )
        console.print(table)
    spent = result.ledger["spent"]
    console.print(result.verdict, soft_wrap=True)
    console.print(
        f"Cost: {result.saving}; {spent['tokens']:,} tokens, {spent['flops']:.2e} FLOPs.",
        soft_wrap=True,
    )
    if result.with_role("winner"):
        kind = "front" if run.search.front else "winner"
        console.print(f"Models: {run.path(kind)}", soft_wrap=True)
    console.print(f"Report: {run.path('report.html')}\n", soft_wrap=True)


def print_status(folder: Path, console: Console) -> None:
    """Print how far a run is.

    Raises:
        InputError: the folder is not a run's.
    """
    run = Run(folder.resolve())
    if not run.has("search.yaml"):
        raise InputError(f"{folder}: no run folder; it would hold a search.yaml")
    search = run.search
    done, asked = run.finished_generations(), search.evolution.generations
    if is_finished(run):
        print_result(run, console)
        return
    stage = f"{done} of {asked} generations" if run.has("bank.parquet") else "being prepared"
    console.print(f"{search.name}: {stage}")
    if done:
        best = max(
            fitness
            for number in range(done)
            for fitness in run.generation(number)["fitness"].to_pylist()
            if fitness is not None
        )
        console.print(f"best so far: {told(best)}")
    answered = sum(not event["reused"] for event in run.events())
    console.print(f"evaluations answered: {answered}")
    console.print("The command that started it goes on where it stopped.")
