"""`mergeflow ui`: Prefect's server, a work pool, the deployments and a worker, on this machine.

Each is started or made only if it is not there, and what was started is stopped at the end.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from flows.deployments import POOL, version_of, write_deployments
from flows.orphans import crash_orphans
from flows.processes import answers, free_port, refuse_taken, run_prefect, running, wait_for
from flows.reports import served
from flows.server import configure, living, note_process, server_of
from mergelib.errors import InputError, MergeflowError

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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt), ExitStack() as parts:
        console.print("Starting; the first time takes about half a minute ...")
        here = _Here(store.resolve(), parts)
        api = here.server(port)
        reports = parts.enter_context(served(here.store, free_port(port + 1)))
        environment = {"PREFECT_API_URL": api, "MERGEFLOW_REPORTS_URL": reports}
        forms = here.deployments(api, environment)
        here.worker(api, environment)
        _print_addresses(console, api.removesuffix("/api"), reports, forms)
        stopped = " and the ".join(here.started)
        stops = f"the {stopped}" if stopped else "nothing: all of it was there before"
        console.print(f"Ctrl-C stops {stops}.")
        while True:
            time.sleep(0.5)
            here.check()
    console.print("Stopped; `mergeflow ui` shows the same runs again.")


class _Here:
    """What is up on this machine.

    Attributes:
        store: folder of run folders.
        started: what was started and not found, by what it is.
    """

    def __init__(self, store: Path, parts: ExitStack) -> None:
        """Start nothing yet; what will be started is stopped when the stack is closed."""
        self.store, self._parts = store, parts
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self._place = store / ".mergeflow" / "ui"
        self._place.mkdir(parents=True, exist_ok=True)

    def server(self, port: int) -> str:
        """The API's address, of a server that is there or one that is started."""
        api = os.environ.get("PREFECT_API_URL", f"http://127.0.0.1:{port}/api").rstrip("/")
        if answers(api):
            return api
        api = f"http://127.0.0.1:{port}/api"
        refuse_taken(port)
        configure(self.store)
        # The UI asks this address, and not the one that it is served from.
        own = {"PREFECT_SERVER_UI_API_URL": api}
        command = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
        server = self._start("server", command, own)
        wait_for(api, server, self._log("server"))
        note_process(server_of(self.store), server.pid, api=api)
        return api

    def deployments(self, api: str, environment: Mapping[str, str]) -> dict[str, str]:
        """Make the work pool and the deployments that are not there; gives the deployments' ids."""
        names = write_deployments(Path.cwd(), self.store, self._place)
        if httpx.get(f"{api}/work_pools/{POOL}").status_code == 404:
            command = ("work-pool", "create", POOL, "--type", "process")
            run_prefect(command, self._place, environment)
        current = version_of(Path.cwd(), self.store)
        missing = [name for name in names if _deployment(api, name).get("version") != current]
        if missing:
            chosen = [part for name in missing for part in ("--name", name.split("/")[1])]
            run_prefect(("--no-prompt", "deploy", *chosen), self._place, environment)
        return {name: _deployment(api, name)["id"] for name in names}

    def worker(self, api: str, environment: Mapping[str, str]) -> None:
        """Start a worker, unless one is there."""
        note = self._place / "worker.json"
        if living(note) or _workers(api):
            return
        # Left over by a worker that was killed; and, at the end, by ours.
        crash_orphans(api, POOL)
        self._parts.callback(crash_orphans, api, POOL)
        command = ("worker", "start", "--pool", POOL, "--type", "process", "--limit", "1")
        named = ("--name", f"{_WORKER}-{os.getpid()}")
        note_process(note, self._start("worker", (*command, *named), environment).pid)

    def check(self) -> None:
        """Raise a MergeflowError if something that was started has ended."""
        for name, process in self.started.items():
            if process.poll() is not None:
                raise MergeflowError(f"the {name} has ended; see {self._log(name)}")

    def _start(
        self, name: str, command: tuple[str, ...], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        process = self._parts.enter_context(running(command, self._log(name), environment))
        self.started[name] = process
        return process

    def _log(self, name: str) -> Path:
        return self._place / f"{name}.log"


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
