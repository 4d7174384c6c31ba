"""Any models on whole benchmarks: scores with intervals, and paired differences to the first."""

from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import yaml
from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import Field
from rich.console import Console
from rich.table import Table

from flows.progress import progress
from flows.quiet import be_quiet
from flows.server import remember_server
from mergelib.comparing import open_contest
from mergelib.errors import InputError
from mergelib.files import write_table, write_text
from mergelib.report import percent, signed
from mergelib.sections.comparison import NAME, Comparison
from mergelib.tables import responses_table
from tasks.comparing import answered_part, hidden
from tasks.showing import artifact_key


@flow(name="compare", flow_run_name="compare", persist_result=False)
def compare(
    comparison: Comparison,
    store: str = "runs",
    name: Annotated[
        str | None,
        Field(pattern=NAME, description="Of the comparison's folder; made up unless given"),
    ] = None,
) -> str:
    """Let models answer benchmarks and compare them item by item; answers are kept in the store.

    Args:
        comparison: which models, which benchmarks, and which of their items.
        store: folder of run folders; the comparison gets a folder of its own in it.
        name: of that folder.

    Returns:
        The folder: comparison.parquet, responses.parquet and comparison.yaml.

    Raises:
        InputError: a model or benchmark does not hold; nothing has been written then.
    """
    be_quiet()
    contest = open_contest(comparison, hidden(Path(store), "models"))
    folder = Path(store).resolve() / (name or f"comparison-{contest.digest[:8]}")
    if (folder / "search.yaml").exists():
        raise InputError(f"{folder}: holds a search's run; give the comparison another name")
    remember_server(Path(store))
    parts = list(contest.parts())
    with progress.of(folder.name, len(parts)):
        answers = []
        for part in parts:
            progress.at(f"{contest.names[part.model]} answers {part.benchmark}")
            answers.append(answered_part(contest, comparison, store, part))
    responses = responses_table(answers)
    result = contest.result(responses)
    write_table(folder / "responses.parquet", responses)
    write_table(folder / "comparison.parquet", result)
    document = contest.comparison.model_dump(mode="json")
    write_text(folder / "comparison.yaml", yaml.safe_dump(document, sort_keys=False))
    rows = [
        {"benchmark": row["benchmark"], **cells(row), "items": row["items"]}
        for row in result.to_pylist()
    ]
    notes = "; ".join(contest.notes) or f"Kept in {folder}"
    create_table_artifact(rows, key=artifact_key(folder.name, "comparison"), description=notes)
    return str(folder)


def cells(row: dict[str, Any]) -> dict[str, str]:
    """A row of comparison.parquet, by the headings of the table that a person sees."""
    gap = f"{signed(row['diff'])} ({signed(row['diff_low'])} to {signed(row['diff_high'])})"
    return {
        "model": row["name"],
        "% correct": percent(row["score"]),
        "95 % interval": f"{percent(row['low'])} to {percent(row['high'])}",
        "to the first": gap,
    }


def print_comparison(folder: Path, console: Console) -> None:
    """Print a comparison's table, a benchmark after the other."""
    rows = pq.read_table(folder / "comparison.parquet").to_pylist()
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        own = [row for row in rows if row["benchmark"] == name]
        asked = max(row["items"] + row["not_scored"] for row in own)
        table = Table(title=f"{name}: {asked} items", title_justify="left", title_style="bold")
        for heading in cells(own[0]):
            table.add_column(heading, justify="left" if heading == "model" else "right")
        for row in own:
            table.add_row(*cells(row).values())
        console.print(table)
        for row in own:
            if row["not_scored"]:
                console.print(f"{row['name']}: {row['not_scored']} items not scored")
    console.print(f"Tables: {folder}", soft_wrap=True)
