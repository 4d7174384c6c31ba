"""What a store keeps of its runs' evaluations, which run needs what of it, and what may go."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mergelib.errors import InputError, unknown
from mergelib.runs import Run
from mergelib.stopping import is_finished


@dataclass(frozen=True)
class Kept:
    """One evaluation's file.

    Attributes:
        file: where it is.
        size: in bytes.
        written: when, in seconds since the epoch.
    """

    file: Path
    size: int
    written: float

    @property
    def version(self) -> str:
        """The code version that it was worked out by; no other finds it."""
        return self.file.parent.name

    @property
    def key(self) -> str:
        """The digest of what decided it."""
        return self.file.name


class Store:
    """A folder of run folders, and the evaluations that they share."""

    def __init__(self, folder: Path, version: str) -> None:
        """Look at a store; nothing is written.

        Args:
            folder: the store.
            version: the code version whose evaluations can still be found.

        Raises:
            InputError: there is no such folder.
        """
        if not folder.is_dir():
            raise InputError(f"--store {folder}: no such folder")
        self.folder = folder.resolve()
        self.version = version

    @property
    def hidden(self) -> Path:
        """What runs share: evaluations, digests and merged adapters, Prefect's database."""
        return self.folder / ".mergeflow"

    @cached_property
    def kept(self) -> list[Kept]:
        """All evaluations, by version and key."""
        return [
            Kept(file, status.st_size, status.st_mtime)
            for file in sorted((self.hidden / "results").glob("*/*"))
            if (status := file.stat()) and file.is_file()
        ]

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The store's runs by name."""
        return {run.folder.name: run for run in self._runs()}

    def _runs(self) -> Iterator[Run]:
        for file in sorted(self.folder.glob("*/search.yaml")):
            run = Run(file.parent)
            try:
                _ = run.search
            except InputError:
                continue  # a search file of the user's own, or of a version long gone
            yield run

    @cached_property
    def used(self) -> dict[str, set[str]]:
        """For each key the names of the runs that rest on it."""
        used: dict[str, set[str]] = {}
        for name, run in self.runs.items():
            for event in run.events():
                used.setdefault(event["key"], set()).add(name)
        return used

    @cached_property
    def unfinished(self) -> set[str]:
        """The runs that have no report yet, or have generations to ask for again."""
        return {name for name, run in self.runs.items() if not _is_done(run)}

    def needed(self, kept: Kept) -> bool:
        """Whether an unfinished run may look for an evaluation again.

        That is what it has found before, and what nobody claims and was written since it began: a
        killed run has not noted its last ones.
        """
        if kept.version != self.version:
            return False
        users = self.used.get(kept.key)
        if users is None:
            return any(kept.written >= _begun(self.runs[name]) for name in self.unfinished)
        return not users.isdisjoint(self.unfinished)

    def select(
        self,
        *,
        before: float | None = None,
        run: str | None = None,
        unreachable: bool = False,
        unused: bool = False,
    ) -> list[Kept]:
        """The evaluations for which all that is given holds.

        Args:
            before: written before so many seconds since the epoch.
            run: used by this run and by no other.
            unreachable: of another code version.
            unused: used by no run; the runs may have been deleted.

        Raises:
            InputError: nothing is given, or there is no such run.
        """
        if before is None and run is None and not unreachable and not unused:
            raise InputError(
                "say what may go: --older-than DAYS, --run NAME, --unreachable or --unused"
            )
        if run is not None and run not in self.runs:
            raise InputError(f"--run: {unknown('a run of this store', run, self.runs)}")
        return [
            kept
            for kept in self.kept
            if (before is None or kept.written < before)
            and (run is None or self.used.get(kept.key) == {run})
            and not (unreachable and kept.version == self.version)
            and not (unused and kept.key in self.used)
        ]

    def delete(self, chosen: Iterable[Kept]) -> None:
        """Delete evaluations: whatever needs one works it out again."""
        for kept in chosen:
            kept.file.unlink(missing_ok=True)


def size_of(chosen: Collection[Kept]) -> int:
    """How many bytes evaluations take."""
    return sum(kept.size for kept in chosen)


def _is_done(run: Run) -> bool:
    try:
        return is_finished(run)
    except InputError:  # its models have gone, and a rule on scores had stopped it: who knows
        return False


def _begun(run: Run) -> float:
    """When a run was begun; search.yaml is written anew when it is extended."""
    return _changed(run, "items.parquet" if run.has("items.parquet") else "search.yaml")


def _changed(run: Run, name: str) -> float:
    return run.path(name).stat().st_mtime
