"""The run folder: everything a search knows, as plain files, and the lock on it.

A generation exists when its Parquet file and its state do; the state is written last. Whatever
exists is finished and never done again.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import yaml

from mergelib import places
from mergelib.errors import InputError
from mergelib.files import (
    append_line,
    file_state,
    read_json,
    read_table,
    write_json,
    write_table,
    write_text,
)
from mergelib.journal import journal_of
from mergelib.search import Search
from mergelib.workbench import Workbench, open_workbench
from mergelib.written import Written, read_search

_DECIDING_PACKAGES = ("mergeflow", "mergekit", "lm-eval", "deap", "torch", "transformers", "numpy")

_MAY_CHANGE = (
    "evolution.generations",
    "evolution.stop.plateau",
    "evolution.stop.hours",
    "evolution.stop.answers",
    "evolution.stop.target",
    "evolution.stop.failures",
    "finalists",
    "deciding_items",
    "compute.cache_gib",
    "compute.seconds_per_candidate",
    "compute.runner",
    "compute.workers",
    "compute.cluster",
)
"""Keys that may differ when a run goes on; generations may only be raised."""


class Run:
    """One search's folder in a store.

    Attributes:
        folder: where its files are.
    """

    def __init__(self, folder: Path) -> None:
        """Name a run folder; nothing is read or written yet."""
        self.folder = folder

    @classmethod
    def of(cls, search: Search, store: Path) -> "Run":
        """The run folder of a search in a store; it need not be there yet."""
        return cls(store.resolve() / search.name)

    @property
    def search(self) -> Search:
        """The search file, as resolved."""
        return self._written().search

    @property
    def fingerprints(self) -> dict[str, str]:
        """What decided the answers when the run was begun; see `prepare`."""
        return dict(self._written().resolved["fingerprints"])

    def _written(self) -> Written:
        path = self.folder / "search.yaml"
        # Asked for at every turn, and slow to parse.
        return read_search(path, file_state(path))

    @property
    def results(self) -> Path:
        """Where Prefect keeps the results of tasks; shared by all runs of the store."""
        return self.folder.parent / ".mergeflow" / "results"

    @property
    def models(self) -> Path:
        """Where fingerprints and merged adapters are kept; shared by all runs of the store."""
        return self.folder.parent / ".mergeflow" / "models"

    def workbench(self) -> Workbench:
        """The process's workbench for this run's search."""
        return open_workbench(self.search, self.models)

    def settled(self, search: Search) -> Search:
        """A search as this run has it, or as it would be begun; see `Search.settled`.

        Whoever opens a search opens this one, so that a process has one workbench for it.
        """
        return search.settled(self.search if self.has("search.yaml") else None)

    # What is there ------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """A file of the run, by its name in the folder."""
        return self.folder / name

    def has(self, *names: str) -> bool:
        """Whether all these files are there."""
        return all((self.folder / name).exists() for name in names)

    def table(self, name: str) -> pa.Table:
        """Read a Parquet file of the run."""
        return read_table(self.folder / name)

    def json(self, name: str) -> Any:
        """Read a JSON file of the run."""
        return read_json(self.folder / name)

    def has_generation(self, generation: int) -> bool:
        """Whether a generation is finished."""
        return self.has(_generation_file(generation), _state_file(generation))

    def finished_generations(self) -> int:
        """How many generations are finished, counted from the first on without a gap."""
        folders = (self.folder / "generations", self.folder / "state")
        there = {f"{f.name}/{e.name}" for f in folders if f.exists() for e in os.scandir(f)}
        count = 0
        while {_generation_file(count), _state_file(count)} <= there:
            count += 1
        return count

    def generation(self, generation: int) -> pa.Table:
        """The table of a finished generation."""
        return self.table(_generation_file(generation))

    def spent(self, generation: int) -> Any:
        """What the search had cost after a finished generation; see `mergelib.ledger.spent`."""
        return read_json(self.folder / _spent_file(generation))

    def state(self, generation: int) -> Any:
        """The optimiser's state after a finished generation."""
        return read_json(self.folder / _state_file(generation))

    # Writing ------------------------------------------------------------------------------------

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file of the run, atomically."""
        write_table(self.folder / name, table)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, atomically."""
        write_json(self.folder / name, value)

    def write_generation(self, generation: int, table: pa.Table) -> None:
        """Write a generation's table; the generation counts once its state is written too."""
        write_table(self.folder / _generation_file(generation), table)

    def write_state(self, generation: int, state: Any, spent: Any) -> None:
        """Write the cost so far and the optimiser's state after a generation, which finishes it."""
        write_json(self.folder / _spent_file(generation), spent)
        write_json(self.folder / _state_file(generation), state)

    def gather_responses(self) -> None:
        """Write responses.parquet: the responses of all stages, in the order of their names."""
        parts = sorted((self.folder / "responses").glob("*.parquet"))
        self.write_table("responses.parquet", pa.concat_tables([read_table(p) for p in parts]))

    def prepare(self, search: Search, fingerprints: dict[str, str]) -> None:
        """Make the folder of a new run, or check that an old one holds this very search.

        Models and benchmarks may lie elsewhere than when it was begun.

        Args:
            search: the search to run.
            fingerprints: what decides its answers beside the search file: a digest of each model
                and benchmark that it names, by its name.

        Raises:
            InputError: the folder holds another search, or something has changed since.
        """
        begun = self.search if self.has("search.yaml") else None
        search = self.settled(search)
        resolved: dict[str, Any] = {"versions": _versions(), "moved": {}}
        if begun is not None:
            self.check_same(search, fingerprints)
            if search == begun:
                return
            resolved |= self._written().resolved
            resolved["moved"] = places.moves(begun, search, resolved["moved"])
        resolved["fingerprints"] = fingerprints
        document = {**search.model_dump(mode="json"), "resolved": resolved}
        text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100)
        write_text(self.folder / "search.yaml", text)

    def check_same(self, search: Search, fingerprints: dict[str, str]) -> None:
        """Check that this run can go on with a search; see `prepare`."""
        own, contents = self.search.settled(), self.fingerprints
        search = search.settled(own)
        before = _flatten(own.model_dump(mode="json"))
        now = _flatten(search.model_dump(mode="json"))
        remedy = "give the search another name, or another --store"
        earlier = self._written().resolved.get("moved", {})
        moved = places.same_models(own, search, contents, fingerprints, earlier)
        for key in sorted(before.keys() | now.keys()):
            old, new = before.get(key), now.get(key)
            # Of models their digests decide here, of all else `places.changed` below.
            elsewhere = places.is_place(key) and None not in (old, new)
            if key in ("base", "endpoints"):
                elsewhere = elsewhere and moved
            if old != new and key not in _MAY_CHANGE and not elsewhere:
                raise InputError(
                    f"{key}: the run in {self.folder} has {_shown(old)}, the search file "
                    f"{_shown(new)}; {remedy}"
                )
        done, asked = self.finished_generations(), search.evolution.generations
        if asked < done:
            raise InputError(
                f"evolution.generations: {asked}, but the run in {self.folder} has {done} already; "
                f"{remedy}"
            )
        if (name := places.changed(own, search, contents, fingerprints)) is not None:
            raise InputError(f"{name}: has changed since {self.folder} was begun; {remedy}")

    def here(self, recipe: str) -> str:
        """A recipe of the run with its models' names as they are now."""
        return places.with_models_at(recipe, self._written().resolved.get("moved", {}))

    def other_versions(self) -> list[str]:
        """The packages that have another version now than when the run was begun."""
        begun, now = self._written().resolved["versions"], _versions()
        return [f"{name} {old}, now {now[name]}" for name, old in begun.items() if now[name] != old]

    @contextmanager
    def lock(self) -> Iterator[str | None]:
        """Hold the run for this process; the operating system frees it if the process dies.

        Yields:
            A line about a process that held it and did not end by itself; None for nobody.

        Raises:
            InputError: another process holds it, or the file system has no locks.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked() as (file, holder):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            try:
                yield holder and _left_by(holder)
            finally:
                file.truncate(0)

    def check_free(self) -> None:
        """See whether another process holds a run that has been begun.

        Raises:
            InputError: one does.
        """
        if self.has(".lock"):
            with self._locked():
                pass

    @contextmanager
    def _locked(self) -> Iterator[tuple[TextIO, str | None]]:
        """The locked file, and who is named in it."""
        with (self.folder / ".lock").open("a+", encoding="utf-8") as file:
            file.seek(0)
            holder = file.read().strip() or None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{self.folder} is in use by {holder or 'another process'}; wait for its end, "
                    "or stop it"
                ) from None
            except OSError as error:
                raise InputError(
                    f"{self.folder}: its file system cannot lock files ({error.strerror}), as some "
                    "network file systems cannot; give a --store on another one"
                ) from error
            yield file, holder

    # The journal --------------------------------------------------------------------------------

    def journal(self, event: dict[str, Any]) -> None:
        """Append one line to journal.jsonl: an evaluation that has just been finished or reused."""
        stamped = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **event}
        append_line(self.folder / "journal.jsonl", json.dumps(stamped, allow_nan=False).encode())

    def events(self) -> Iterator[dict[str, Any]]:
        """The journal's whole lines, oldest first."""
        yield from journal_of(self.folder / "journal.jsonl").events


def _left_by(holder: str) -> str:
    """What a lock that nobody holds any more says, whose file still names a process."""
    if holder.endswith(f" on {socket.gethostname()}"):
        return f"{holder} was killed; the run goes on where it stopped"
    return (
        f"{holder} did not end; if it still runs there, stop it: on this file system neither sees "
        "the other's lock"
    )


def _versions() -> dict[str, str]:
    return {package: version(package) for package in _DECIDING_PACKAGES}


def _generation_file(generation: int) -> str:
    return f"generations/{generation:04d}.parquet"


def _state_file(generation: int) -> str:
    return f"state/{generation:04d}.json"


def _spent_file(generation: int) -> str:
    return f"state/{generation:04d}.spent.json"


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings, and lists of them, as one mapping with dotted keys."""
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        value = {str(number): part for number, part in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= _flatten(part, f"{prefix}.{key}" if prefix else key)
    return flat


def _shown(value: Any) -> str:
    return "nothing" if value is None or value == [] else str(value)
