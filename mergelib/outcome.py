"""What came out of a search, as Markdown for Prefect's UI: the report's essentials, the models."""

from collections.abc import Iterator
from typing import Any

from mergelib.report import Result, percent, signed
from mergelib.reservations import reservations
from mergelib.story import picture_in_markdown


def outcome_markdown(result: Result, link: str | None) -> str:
    """Verdict, picture, table and cost, and where the whole report is.

    Args:
        result: of a finished run.
        link: where a browser finds the report; None where nothing serves it.
    """
    place = result.run.path("report.html")
    return "\n".join(
        [
            f"# {result.run.folder.name}",
            "",
            result.verdict,
            "",
            f"**[Open the report]({link})**" if link else f"The report: `{place}`",
            "",
            picture_in_markdown("The search, and what came out on fresh items", result.picture),
            "",
            *(line for name in result.names for line in _table(result, name)),
            *(f"{sentence}\n" for sentence in reservations(result.run.workbench())),
            f"{result.saving[0].upper()}{result.saving[1:]}.",
        ]
    )


def winner_markdown(result: Result) -> str:
    """Where the exported models are, what they score, and their recipes."""
    search = result.run.search
    models: dict[str, list[dict[str, Any]]] = {}
    for row in result.with_role("winner"):
        models.setdefault(row["model"], []).append(row)
    if not models:
        return result.verdict
    lines = []
    for model, rows in models.items():
        folder = result.run.path(f"front/{model[:12]}" if search.front else "winner")
        scores = ", ".join(f"{row['benchmark']} {percent(row['score'])} %" for row in rows)
        lines += [f"## {result.named(rows[0])}: {scores}", "", f"`{folder}`", ""]
        lines += ["```yaml", rows[0]["recipe"].strip(), "```", ""]
    return "\n".join(lines)


def _table(result: Result, name: str) -> Iterator[str]:
    """A benchmark's scores, with the columns of the report; finalists that did not win left out."""
    rows = [row for row in result.rows if row["benchmark"] == name and row["role"] != "finalist"]
    items = max(row["items"] for row in rows)
    yield f"| {name}: % correct on {items} fresh items | score | 95 % | to the best endpoint |"
    yield "|---|---|---|---|"
    for row in rows:
        bold = "**" if row["role"] == "winner" else ""
        gap = f"{signed(row['diff'])} ({signed(row['diff_low'])} to {signed(row['diff_high'])})"
        yield (
            f"| {bold}{result.named(row)}{bold} | {percent(row['score'])} "
            f"| {percent(row['low'])} to {percent(row['high'])} | {gap} |"
        )
    yield ""
