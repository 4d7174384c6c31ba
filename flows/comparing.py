"""`mergeflow compare`: the command around the flow."""

import re
import signal
from pathlib import Path
from typing import Any

from rich.console import Console

from mergelib.comparing import open_contest
from mergelib.errors import InputError
from mergelib.files import NotFull
from mergelib.search_file import apply_override
from mergelib.sections.comparison import NAME, parse_comparison


def run_comparison(
    models: list[str],
    benchmarks: list[str],
    store: Path,
    name: str | None,
    overrides: list[str],
    console: Console,
) -> None:
    """Check first, so that a fault is told at once and nothing is written; then compare and print.

    Raises:
        InputError: something in it does not hold; one line for each fault.
    """
    document: dict[str, Any] = {
        "models": models,
        "benchmarks": [{"benchmark": benchmark} for benchmark in benchmarks],
    }
    for override in overrides:
        apply_override(document, override)
    comparison = parse_comparison(document, "compare")
    if name is not None and not re.match(NAME, name):
        raise InputError(f"--name {name}: letters, digits, dots, dashes and underscores only")
    if store.exists() and not store.is_dir():
        raise InputError(f"--store {store}: is a file; name a folder")
    cache = store.resolve() / ".mergeflow" / "models"
    contest = open_contest(comparison, cache)
    for note in contest.notes:
        console.print(f"  note: {note}", soft_wrap=True)

    from flows.startup import Startup

    # Prefect ends a flow on SIGTERM, and then sends it again to what handled it before.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with NotFull(store):
        startup = Startup(store)
    # Prefect reads its settings when it is first imported: not before this line.
    from flows.interrupts import resumable
    from flows.server import wait_until_recorded

    with resumable(store):
        console.print(f"  {startup.finish()}", soft_wrap=True)
        from flows.compare import compare, print_comparison
        from flows.progress import progress

        progress.show()
        folder = compare(comparison, str(store), name)
    print_comparison(Path(folder), console)
    wait_until_recorded()
