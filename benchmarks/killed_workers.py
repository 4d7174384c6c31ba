"""Killing the worker processes of a search that goes on, for `benchmarks.kills`."""

import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.resuming import COMMAND
from mergelib.runs import Run

_LOADED = 2.0
"""Seconds of processor time after which a worker has opened its models and is at work."""


def workers_of(command: int) -> list[psutil.Process]:
    """The processes in which Dask or Ray lets candidates answer, for a command's process."""
    found = []
    for child in psutil.Process(command).children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "spawn_main" in line or (line.startswith("ray::") and "Dashboard" not in line):
            found.append(child)
    return found


def search_with_killed_workers(
    search: Path,
    run: Run,
    drawn: Sequence[tuple[float, float]],
    seed: int,
    env: Mapping[str, str],
    before_each: Callable[[], None],
) -> int:
    """Run the command once, and kill one of its workers at each moment.

    Args:
        search: the search file; its runner is dask or ray.
        run: its run folder.
        drawn: when to kill; see `benchmarks.kills.moments`.
        seed: draws which worker.
        env: the command's environment.
        before_each: called before each kill and at the end.

    Returns:
        How many kills met a worker that was at work.
    """
    chance, landed = random.Random(seed), 0
    arguments = [*COMMAND, "evolve", str(search), "--store", str(run.folder.parent)]
    with subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL) as process:
        for place, later in drawn:
            while process.poll() is None and len({e["key"] for e in run.events()}) < place:
                time.sleep(0.02)
            time.sleep(later)
            worker = _at_work(process, chance)
            before_each()
            if worker is not None:
                worker.kill()
                landed += 1
    if process.returncode:
        raise SystemExit(f"the search did not outlive its workers: exit code {process.returncode}")
    before_each()
    return landed


def _at_work(process: subprocess.Popen[bytes], chance: random.Random) -> psutil.Process | None:
    """One of the workers, once one has opened its models; None if the command has ended."""
    while process.poll() is None:
        try:
            loaded = [w for w in workers_of(process.pid) if w.cpu_times().user > _LOADED]
        except psutil.NoSuchProcess:
            continue
        if loaded:
            return chance.choice(loaded)
        time.sleep(0.05)
    return None


def still_there(processes: Sequence[psutil.Process], seconds: float = 30.0) -> int:
    """How many processes have not ended by themselves within some seconds."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return len(alive)
