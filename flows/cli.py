"""The `mergeflow` command.

Exit codes: 0 done; 2 what the user gave is at fault; 130 interrupted; 1 anything else.
"""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cache import app as cache_app
from flows.quiet import be_quiet
from mergelib.errors import InputError, MergeflowError

if TYPE_CHECKING:
    from mergelib.search import Search

app = typer.Typer(
    name="mergeflow",
    help="Evolve merges of language models, judged on a few dozen items.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
zoo_app = typer.Typer(help="The tiny model family that the demo merges.", no_args_is_help=True)
app.add_typer(zoo_app, name="zoo")
app.add_typer(cache_app, name="cache")

SearchFile = Annotated[Path, typer.Argument(metavar="SEARCH.yaml", help="The search file")]
Store = Annotated[Path, typer.Option(help="Folder of run folders")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrides the file; keys are dotted"),
]


@app.command()
def demo(store: Store = Path("runs")) -> None:
    """Two searches on the shipped models: one objective, and a front of two."""
    from mergelib.shipped import shipped

    for name in ("zoo-ja.yaml", "zoo-front.yaml"):
        _evolve(shipped("searches") / name, store, [])


@app.command()
def evolve(search: SearchFile, store: Store = Path("runs"), set_: Overrides = None) -> None:
    """Run a search, or go on with one that was stopped."""
    _evolve(search, store, set_ or [])


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="A mergekit configuration")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that is not there yet")],
    seed: Annotated[int, typer.Option(help="Decides the random masks of DARE and DELLA")] = 0,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with a model")
    ] = False,
) -> None:
    """Merge one recipe to a folder that transformers, lm-eval and mergekit open."""
    be_quiet()
    from mergelib.merging.standalone import merge_to_folder

    merge_to_folder(recipe, out, seed=seed, trust_remote_code=trust_remote_code)
    _console().print(f"merged: {out}", soft_wrap=True)


@app.command()
def check(search: SearchFile, set_: Overrides = None) -> None:
    """Check a search file, its models and its benchmarks; write nothing."""
    be_quiet()
    from flows.runners import check_runner
    from mergelib.search_file import load_search
    from mergelib.workbench import open_workbench

    loaded = load_search(search, set_ or [])
    check_runner(loaded.compute)
    bench = open_workbench(loaded)
    for note in [*bench.notes, *bench.rehearse()]:
        _console().print(f"note: {note}", soft_wrap=True)
    counts = ", ".join(
        f"{name} ({len(b.pool('search'))} search and {len(b.pool('fresh'))} fresh items)"
        for name, b in bench.benchmarks.items()
    )
    _console().print(
        f"{search} is in order: {len(bench.checkpoints)} models, {bench.space.dimension} genes, "
        f"{counts}",
        soft_wrap=True,
    )


@app.command()
def status(run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder")]) -> None:
    """Say how far a run is."""
    be_quiet()
    from flows.result import print_status

    print_status(run, _console())


@app.command()
def compare(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Folders, hub ids, or run folders for winners"),
    ],
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", "-b", help="An lm-eval task's file or name; may be repeated"),
    ] = None,
    store: Store = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Of its folder in the store")] = None,
    set_: Overrides = None,
) -> None:
    """Compare models on whole benchmarks: intervals, and paired differences to the first."""
    be_quiet()
    from flows.comparing import run_comparison

    run_comparison(models, benchmark or [], store, name, set_ or [], _console())


@app.command()
def ui(
    store: Store = Path("runs"),
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of Prefect's server, on 127.0.0.1")
    ] = 4200,
) -> None:
    """Configure, launch and watch searches in a browser: server, forms and worker in one."""
    be_quiet()
    from flows.ui import run_ui

    run_ui(store, port, _console())


@zoo_app.command()
def build(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that is not there yet")],
    seed: Annotated[int, typer.Option(help="A seed gives the same weights to the bit")] = 0,
) -> None:
    """Train the base model and its three experts; takes a few minutes."""
    be_quiet()
    from flows.zoo import build_with_progress

    build_with_progress(out, seed)


def _evolve(search_file: Path, store: Path, overrides: list[str]) -> None:
    """Check first, so that a fault is told at once and nothing is written; then run."""
    be_quiet()
    console = _console()
    console.print(f"[bold]{search_file.stem}[/bold]: checking models and benchmarks")
    from mergelib.files import NotFull
    from mergelib.search_file import load_search

    search = load_search(search_file, overrides)
    if store.exists() and not store.is_dir():
        raise InputError(f"--store {store}: is a file; name a folder")
    from flows.runners import check_runner
    from flows.startup import Startup

    check_runner(search.compute)

    # There is a server to be ended from here on. Prefect ends a flow on SIGTERM, and then sends it
    # again to what handled it before.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with NotFull(store):
        startup = Startup(store)
    try:
        if not (store / search.name / "report.html").exists():
            startup.begin()
        finished = _is_checked_and_finished(search, store)
    except BaseException:
        startup.undo()
        raise
    from flows.result import print_result
    from mergelib.runs import Run

    run = Run.of(search, store)
    if finished:
        print_result(run, console)
        return
    console.print(f"  {startup.finish()}", soft_wrap=True)
    # Prefect reads its settings when it is first imported: not before these lines.
    from flows.evolve import evolve as evolve_flow
    from flows.interrupts import resumable
    from flows.progress import progress
    from flows.server import wait_until_recorded

    progress.show()
    with resumable(store):
        evolve_flow(search, str(store))
    print_result(run, console)
    wait_until_recorded()


def _is_checked_and_finished(search: "Search", store: Path) -> bool:
    """Open all that a search names and try it; whether nothing is left to be done of it."""
    from mergelib.runs import Run
    from mergelib.stopping import is_finished
    from mergelib.workbench import open_workbench

    run = Run.of(search, store)
    run.check_free()
    search = run.settled(search)
    bench = open_workbench(search, run.models)
    for note in bench.notes:
        _console().print(f"  note: {note}", soft_wrap=True)
    if run.has("search.yaml"):
        run.check_same(search, bench.contents)
        if search == run.search and is_finished(run):
            return True
    for note in bench.rehearse():
        _console().print(f"  note: {note}", soft_wrap=True)
    return False


def _console() -> Console:
    return Console(highlight=False)


def main() -> None:
    """Run the command, and turn errors into one line and an exit code."""
    try:
        app()
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except MergeflowError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
        if error.filename is None:
            raise
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == 130:
            # Threads and exit handlers that were cut short as well would print their traces.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        raise
