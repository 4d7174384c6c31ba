"""A search that is killed again and again ends as one that was not.

    python -m benchmarks.kills [--kills 20] [--seed 0] [--how embedded fresh server dask ray
        dask-command ray-command] [--store DIR] [--json FILE]

Runs a small search of the shipped models once undisturbed, then once for each way in `--how`, where
its process is killed (SIGKILL) at moments drawn from the seed: between the start and the end of the
whole search, loading and reporting included. In between, `embedded` changes nothing; `fresh` throws
Prefect's database away; `server` runs against `prefect server start`, which is killed as well and
started again. With `dask` and `ray` two workers answer: one of them is killed each time, and the
command goes on by itself to its end. With `dask-command` and `ray-command` it is the command that
is killed, as in `embedded`.

`landed` is how many kills met a living process, `differing` how many of the run's Parquet files and
states are not what they are in the undisturbed run, but for seconds and what was reused;
`answered_again` how many evaluations that were in the store whole were worked out once more; `left`
how many workers of killed commands were still there 30 s later; `seconds` what it took in all.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.killed_workers import search_with_killed_workers, still_there, workers_of
from benchmarks.record import report
from benchmarks.resuming import COMMAND, search_of
from mergelib.runs import Run
from tasks.results import fault_of

WAYS = ("embedded", "fresh", "server", "dask", "ray", "dask-command", "ray-command")

_GENERATIONS = 12
"""Of four candidates each: so many that hardly any loses its worker three times and has failed."""

_LOADING = 8.0
"""Seconds from a command's start within which it may be killed before its first evaluation."""

_END = 4.0
"""Seconds from the last evaluation on within which it may be killed while it reports."""


def moments(kills: int, evaluations: int, seed: int) -> list[tuple[float, float]]:
    """When to kill: after how many evaluations in all, and how many seconds later; rising.

    Args:
        kills: how many moments.
        evaluations: how many the whole search has.
        seed: draws them.
    """
    chance = random.Random(seed)
    drawn = []
    for _ in range(kills):
        place = chance.uniform(-0.1, 1.1) * evaluations
        most = _LOADING if place < 0 else _END if place >= evaluations else 0.3
        drawn.append((min(max(place, 0.0), float(evaluations)), most * chance.random()))
    return sorted(drawn)


class Killed(NamedTuple):
    """What a kill met: whether the command was alive, and how many workers outlived it."""

    alive: bool
    left: int


def killed_at(search: Path, run: Run, moment: tuple[float, float], env: dict[str, str]) -> Killed:
    """Run the command and kill it at a moment."""
    arguments = ["evolve", str(search), "--store", str(run.folder.parent)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*COMMAND, *arguments], env=env, **quiet) as process:
        while process.poll() is None and len({e["key"] for e in run.events()}) < moment[0]:
            time.sleep(0.02)
        end = time.monotonic() + moment[1]
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        alive = process.poll() is None
        workers = workers_of(process.pid) if alive else []
        process.send_signal(signal.SIGKILL)
    return Killed(alive, still_there(workers))


def whole_results(run: Run) -> dict[str, int]:
    """When each evaluation that is in the store whole was written, by its key."""
    files = [file for file in run.results.glob("*/*") if fault_of(file) is None]
    return {file.name: file.stat().st_mtime_ns for file in files}


def decided(run: Run) -> dict[str, Any]:
    """All tables and states of a run, without what may differ between two runs of one search."""
    files: dict[str, Any] = {}
    for file in sorted(run.folder.rglob("*.parquet")):
        files[str(file.relative_to(run.folder))] = _untimed(pq.read_table(file)).to_pylist()
    for file in sorted(run.path("state").glob("[0-9]*.json")):
        if not file.name.endswith(".spent.json"):
            files[str(file.relative_to(run.folder))] = json.loads(file.read_text())
    for file in sorted(run.path("winner").glob("*.safetensors")):
        files[str(file.relative_to(run.folder))] = file.read_bytes()
    return files


def _untimed(table: pa.Table) -> pa.Table:
    timed = [n for n in table.column_names if n == "reused" or n.startswith("seconds")]
    return table.drop_columns(timed)


@contextmanager
def standing_server(home: Path, port: int) -> Iterator[None]:
    """`prefect server start` on localhost, killed at the end."""
    env = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    env.pop("PREFECT_API_URL", None)
    home.mkdir(parents=True, exist_ok=True)
    start = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # In a group of its own, as it starts processes that have to go with it.
    with subprocess.Popen(
        [*start, "--port", str(port)], env=env, start_new_session=True, **quiet
    ) as process:
        try:
            _await(f"http://127.0.0.1:{port}/api/health", process)
            yield
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _await(address: str, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.25)
    raise SystemExit("the Prefect server did not start")


def free_port() -> int:
    """A port of localhost that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """The environment of a user: nothing of Prefect set but what is given."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | more


def undisturbed(search: Path, store: Path) -> Run:
    """Run the search once."""
    arguments = ["evolve", str(search), "--store", str(store)]
    subprocess.run([*COMMAND, *arguments], env=environment(), check=True, stdout=subprocess.DEVNULL)
    return Run(store / "long")


class Disturbed(NamedTuple):
    """What came of a search that was killed; see the module."""

    landed: int
    answered_again: int
    left: int = 0


def with_killed_workers(
    search: Path, run: Run, drawn: list[tuple[float, float]], seed: int
) -> Disturbed:
    """Run a search once, and kill one of its workers at each moment."""
    written, again = dict[str, int](), 0

    def look() -> None:
        nonlocal again
        now = whole_results(run)
        again += sum(now.get(key) != when for key, when in written.items())
        written.update(now)

    landed = search_with_killed_workers(search, run, drawn, seed, environment(), look)
    return Disturbed(landed, again)


def disturbed(search: Path, run: Run, drawn: list[tuple[float, float]], way: str) -> Disturbed:
    """Run a search, kill it at each moment, then let it end."""
    store, port = run.folder.parent, free_port()
    env = environment()
    if way == "server":
        env["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    landed, again, left, before = 0, 0, 0, dict[str, int]()
    for moment in [*drawn, None]:
        with standing_server(store / "server", port) if way == "server" else _nothing():
            if moment is not None:
                killed = killed_at(search, run, moment, env)
                landed, left = landed + killed.alive, left + killed.left
            else:
                arguments = ["evolve", str(search), "--store", str(store)]
                subprocess.run(
                    [*COMMAND, *arguments], env=env, check=True, stdout=subprocess.DEVNULL
                )
        after = whole_results(run)
        again += sum(after.get(key) != written for key, written in before.items())
        before = after
        if way == "fresh":
            shutil.rmtree(store / ".mergeflow" / "prefect", ignore_errors=True)
    return Disturbed(landed, again, left)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def measure(kills: int, seed: int, ways: list[str], folder: Path) -> list[dict[str, Any]]:
    """Measure each way."""
    search = folder / "search.yaml"
    search.write_text(yaml.safe_dump(search_of(4, _GENERATIONS)), encoding="utf-8")
    reference = undisturbed(search, folder / "undisturbed")
    expected = decided(reference)
    evaluations = len({event["key"] for event in reference.events()})
    rows = []
    for number, way in enumerate(ways):
        start = time.perf_counter()
        drawn = moments(kills, evaluations, seed + number)
        run = Run(folder / way / "long")
        runner = way.partition("-")[0]
        content = search_of(4, _GENERATIONS)
        if runner in ("dask", "ray"):
            content["compute"] = {"runner": runner, "workers": 2}
        search.write_text(yaml.safe_dump(content), encoding="utf-8")
        if way in ("dask", "ray"):
            result = with_killed_workers(search, run, drawn, seed + number)
        else:
            result = disturbed(search, run, drawn, way)
        found = decided(run)
        names = expected.keys() | found.keys()
        differing = sorted(name for name in names if found.get(name) != expected.get(name))
        ledger = json.loads(run.path("ledger.json").read_text())
        rows.append(
            {
                "way": way,
                "seed": seed + number,
                "evaluations": evaluations,
                "kills": kills,
                "landed": result.landed,
                "files": len(expected),
                "differing": len(differing),
                "answered_again": result.answered_again + ledger["answered_twice"],
                "left": result.left,
                "seconds": time.perf_counter() - start,
            }
        )
        for name in differing:
            print(f"{way}: {name} differs", file=sys.stderr)
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--how", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--store", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.store or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = measure(arguments.kills, arguments.seed, arguments.how, folder)
    report("kills", rows, arguments.json)


if __name__ == "__main__":
    main()
