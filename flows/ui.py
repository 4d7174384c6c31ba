"""`mergeflow ui`: Prefect's server, a work pool, the deployments and a worker, on this machine.

Each is started or made only if it is not there, and what was started is stopped at the end.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console

from flows.deployments import POOL, write_deployments
from flows.orphans import crash_orphans
from flows.reports import served
from flows.server import configure, living, note_process, server_of
from mergelib.errors import InputError, MergeflowError

_PATIENCE = 180.0
"""Seconds that a server may take to start; a new database on a busy machine needs a minute."""

_WORKER = "mergeflow-ui"
"""What the names of our own workers begin with."""


def run_ui(store: Path, port: int, console: Console) -> None:
    """Bring up what is not there, print the addresses, and wait for Ctrl-C.

    Args:
        store: folder of run folders; server and worker write their logs into its `.mergeflow`.
        port: of the server; the reports have the next free one.
        console: where the addresses are printed.

    Raises:
        InputError: the port is taken by something else.
        MergeflowError: a part did not start, or ended.
    """
    if store.exists() and not store.is_dir():
        raise InputError(f"--store {store}: is a file; name a folder")
    store = store.resolve()
    place = store / ".mergeflow" / "ui"
    place.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt), ExitStack() as parts:
        console.print("Starting; the first time takes about half a minute ...")
        started: dict[str, subprocess.Popen[bytes]] = {}
        api = os.environ.get("PREFECT_API_URL", f"http://127.0.0.1:{port}/api").rstrip("/")
        if not _answers(api):
            api = f"http://127.0.0.1:{port}/api"
            _refuse_taken(port)
            configure(store)
            command = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
            # The UI asks this address, and not the one that it is served from.
            own = {"PREFECT_SERVER_UI_API_URL": api}
            started["server"] = parts.enter_context(_running(command, place / "server.log", own))
            _wait_for(api, started["server"], place / "server.log")
            note_process(server_of(store), started["server"].pid, api=api)
        reports = parts.enter_context(served(store, _free_port(port + 1)))
        environment = {"PREFECT_API_URL": api, "MERGEFLOW_REPORTS_URL": reports}
        forms = _deploy(api, store, place, environment)
        if not (_workers(api) or living(place / "worker.json")):
            command = ("worker", "start", "--pool", POOL, "--type", "process", "--limit", "1")
            command += ("--name", f"{_WORKER}-{os.getpid()}")
            log = place / "worker.log"
            # Left over by a worker that was killed; and, at the end, by ours.
            crash_orphans(api, POOL)
            parts.callback(crash_orphans, api, POOL)
            started["worker"] = parts.enter_context(_running(command, log, environment))
            note_process(place / "worker.json", started["worker"].pid)
        _print_addresses(console, api.removesuffix("/api"), reports, forms)
        stops = " and the ".join(started) or "nothing: all of it was there before"
        console.print(f"Ctrl-C stops the {stops}." if started else f"Ctrl-C stops {stops}.")
        while True:
            time.sleep(0.5)
            for name, process in started.items():
                if process.poll() is not None:
                    raise MergeflowError(f"the {name} has ended; see {place / f'{name}.log'}")
    console.print("Stopped; `mergeflow ui` shows the same runs again.")


def _deploy(api: str, store: Path, place: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Make the work pool and the deployments that are not there; returns the deployments' ids."""
    names = write_deployments(Path.cwd(), store, place)
    if httpx.get(f"{api}/work_pools/{POOL}").status_code == 404:
        _prefect(("work-pool", "create", POOL, "--type", "process"), place, environment)
    missing = [name for name in names if not _is_current(api, name)]
    chosen = [part for name in missing for part in ("--name", name.split("/")[1])]
    if missing:
        _prefect(("--no-prompt", "deploy", *chosen), place, environment)
    return {name: _deployment(api, name)["id"] for name in names}


def _is_current(api: str, name: str) -> bool:
    return bool(_deployment(api, name).get("version") == version("mergeflow"))


def _deployment(api: str, name: str) -> dict[str, Any]:
    answer = httpx.get(f"{api}/deployments/name/{name}")
    return dict(answer.json()) if answer.status_code == 200 else {}


def _workers(api: str) -> list[Any]:
    """The workers on the pool that others have started.

    The server takes a worker for living for a while after its end; ours are known by a note.
    """
    online = {"workers": {"status": {"any_": ["ONLINE"]}}}
    answer = httpx.post(f"{api}/work_pools/{POOL}/workers/filter", json=online)
    found = answer.json() if answer.status_code == 200 else []
    return [worker for worker in found if not worker["name"].startswith(_WORKER)]


def _print_addresses(console: Console, ui: str, reports: str, forms: Mapping[str, str]) -> None:
    console.print(f"\n[bold]Prefect's UI[/bold]      {ui}")
    for name, identity in forms.items():
        form = f"{ui}/deployments/deployment/{identity}/run"
        console.print(f"{name.split('/')[0]:<17} {form}", soft_wrap=True)
    console.print(f"{'reports':<17} {reports}\n")


def _prefect(command: tuple[str, ...], place: Path, environment: Mapping[str, str]) -> None:
    """Run a command of Prefect's to its end.

    Raises:
        MergeflowError: it failed; with its last line.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *command],
        cwd=place,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise MergeflowError(f"prefect {' '.join(command)}: {said[-1]}")


@contextmanager
def _running(
    command: tuple[str, ...], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Prefect's while the context lasts; at its end it is stopped with all of its own.

    Ctrl-C at the terminal does not reach it, so that the parts end in order.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, these first, so that a search can still say so."""
    with suppress(psutil.NoSuchProcess):
        own = psutil.Process(process.pid).children(recursive=True)
        for child in own:
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        psutil.wait_procs(own, timeout=10)
        process.terminate()
        _, alive = psutil.wait_procs([psutil.Process(process.pid), *own], timeout=15)
        for left in alive:
            left.kill()
    process.wait()


def _answers(api: str) -> bool:
    with suppress(httpx.HTTPError, ValueError):
        return httpx.get(f"{api}/health", timeout=5).json() is True
    return False


def _wait_for(api: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while not _answers(api):
        if server.poll() is not None:
            raise MergeflowError(f"Prefect's server did not start; see {log}")
        if time.monotonic() > end:
            raise MergeflowError(f"Prefect's server does not answer at {api}; see {log}")
        time.sleep(0.25)


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise InputError(f"--port {port}: in use, and not by Prefect; give another")


def _free_port(first: int) -> int:
    """The first port from a number on that nothing listens at."""
    for port in range(first, first + 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise InputError(f"--port: nothing is free from {first} to {first + 99}")
