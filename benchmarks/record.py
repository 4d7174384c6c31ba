"""What every benchmark command prints and writes: a table, and one JSON shape."""

import itertools
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

_PACKAGES = ("mergeflow", "mergekit", "lm-eval", "torch", "transformers", "numpy")


def report(
    benchmark: str, rows: list[dict[str, Any]], out: Path | None, *, shown: bool = True
) -> None:
    """Print rows as a table and write them as JSON.

    Args:
        benchmark: the command's name.
        rows: flat records; those that follow one another with the same keys make a table.
        out: where the JSON goes: benchmark, machine, versions and rows; None for nowhere.
        shown: whether the table is printed.
    """
    for _, alike in itertools.groupby(rows if shown else [], key=list):
        _print([*alike])
    if out is not None:
        record = {
            "benchmark": benchmark,
            "machine": ", ".join(_machine()),
            "versions": {package: _version(package) for package in _PACKAGES},
            "rows": rows,
        }
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _machine() -> list[str]:
    parts = [platform.machine(), f"{os.cpu_count()} processors", platform.system()]
    return [*parts, torch.cuda.get_device_name()] if torch.cuda.is_available() else parts


def _version(package: str) -> str | None:
    """None for what runs from its folder, without being installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table()
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    # A table cut to fit is of no use in a file or a pipe.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
