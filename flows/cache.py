"""`mergeflow cache`: what a store keeps of its runs' evaluations, and deleting what is not needed.

The imports are inside, so that the other commands do not wait for them.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.quiet import be_quiet

if TYPE_CHECKING:
    from mergelib.store import Store

app = typer.Typer(help="The evaluations that a store's runs share.", no_args_is_help=True)

StoreFolder = Annotated[Path, typer.Option("--store", help="Folder of run folders")]


@app.command("list")
def list_kept(store: StoreFolder = Path("runs")) -> None:
    """Say what is kept, how large it is, and which runs rest on it."""
    from mergelib.files import amount
    from mergelib.store import size_of

    own, console = _open(store), Console(highlight=False)
    console.print(
        f"{own.hidden / 'results'}: {len(own.kept):,} evaluations, {amount(size_of(own.kept))}",
        soft_wrap=True,
    )
    versions = _table("code version", "evaluations", "size", "note")
    for version in sorted({kept.version for kept in own.kept}):
        of_version = [kept for kept in own.kept if kept.version == version]
        note = "" if version == own.version else "cannot be found any more"
        versions.add_row(version, f"{len(of_version):,}", amount(size_of(of_version)), note)
    console.print(versions)
    runs = _table("run", "evaluations", "size", "of these its own", "note")
    for name in own.runs:
        used = [kept for kept in own.kept if name in own.used.get(kept.key, ())]
        alone = [kept for kept in used if own.used[kept.key] == {name}]
        note = "unfinished" if name in own.unfinished else ""
        sizes = amount(size_of(used)), amount(size_of(alone))
        runs.add_row(name, f"{len(used):,}", *sizes, note)
    unused = [kept for kept in own.kept if kept.key not in own.used]
    if unused:
        runs.add_row("(no run)", f"{len(unused):,}", amount(size_of(unused)), "", "")
    console.print(runs)
    for name, what in (
        ("models", "digests and merged adapters"),
        ("prefect", "Prefect's database"),
    ):
        size = sum(file.stat().st_size for file in (own.hidden / name).rglob("*") if file.is_file())
        console.print(f"{own.hidden / name}: {what}, {amount(size)}", soft_wrap=True)


@app.command()
def prune(
    store: StoreFolder = Path("runs"),
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Written longer ago")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="NAME", help="Used by this run and by no other")
    ] = None,
    unreachable: Annotated[
        bool, typer.Option("--unreachable", help="Of another code version, which none finds")
    ] = False,
    unused: Annotated[bool, typer.Option("--unused", help="Used by no run of the store")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Really delete")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also what unfinished runs would look for again")
    ] = False,
) -> None:
    """Delete evaluations for which all that is given holds; without --delete only say which."""
    from mergelib.files import amount
    from mergelib.store import size_of

    own, console = _open(store), Console(highlight=False)
    before = None if older_than is None else time.time() - older_than * 86400
    chosen = own.select(before=before, run=run, unreachable=unreachable, unused=unused)
    needed = [] if force else [kept for kept in chosen if own.needed(kept)]
    held = set(needed)
    chosen = [kept for kept in chosen if kept not in held]
    if needed:
        console.print(
            f"{len(needed):,} more are kept, which unfinished runs would look for again "
            f"({', '.join(sorted(own.unfinished))}); --force deletes them too",
            soft_wrap=True,
        )
    what = f"{len(chosen):,} evaluations, {amount(size_of(chosen))}"
    if not delete:
        console.print(f"would delete {what}; --delete does it", soft_wrap=True)
        return
    own.delete(chosen)
    console.print(f"deleted {what}", soft_wrap=True)


def _open(store: Path) -> "Store":
    be_quiet()
    from mergelib.store import Store
    from tasks.caching import ANSWER_VERSION

    return Store(store, ANSWER_VERSION)


def _table(*columns: str) -> Table:
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if column and number else "left")
    return table
