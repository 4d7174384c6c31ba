"""What every benchmark command prints and writes: a table, and one JSON shape."""

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_PACKAGES = ("mergeflow", "mergekit", "lm-eval", "torch", "transformers", "numpy")


def report(benchmark: str, rows: list[dict[str, Any]], out: Path | None) -> None:
    """Print rows as a table and write them as JSON.

    Args:
        benchmark: the command's name.
        rows: flat records with the same keys.
        out: where the JSON goes: benchmark, machine, versions and rows; None for nowhere.
    """
    table = Table()
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    # A table cut to fit is of no use in a file or a pipe.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if out is not None:
        record = {
            "benchmark": benchmark,
            "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()}",
            "versions": {package: version(package) for package in _PACKAGES},
            "rows": rows,
        }
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
