"""Prefect's embedded server: settings before it starts, nothing left behind when it ends.

Import this module, and call `configure`, before anything imports Prefect.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from mergelib.errors import InputError
from mergelib.files import read_json, write_json

_SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    # On a busy machine the server needs longer than Prefect's 20 seconds.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # By default the recorder keeps task runs in memory and loses them when the client exits early.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
}

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The command says itself what went wrong; Prefect would print each error twice, with traces.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "TOKENIZERS_PARALLELISM": "false",
    # Idle threads that spin take the second core from the search's other processes.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def configure(store: Path) -> None:
    """Say where Prefect keeps its database, and how its embedded server behaves.

    Where PREFECT_API_URL names a standing server, or `mergeflow ui` has one running for this store,
    that one is used and only noise is turned down.
    Whatever the environment says already is kept.

    Args:
        store: folder of run folders; the database goes into its `.mergeflow` folder.
    """
    settings = dict(_QUIET)
    if (standing := _standing_server(store)) is not None:
        os.environ.setdefault("PREFECT_API_URL", standing)
    if "PREFECT_API_URL" not in os.environ:
        home = home_of(store)
        home.mkdir(parents=True, exist_ok=True)
        settings |= {**_SETTINGS, "PREFECT_HOME": str(home)}
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def server_of(store: Path) -> Path:
    """Where `mergeflow ui` notes the server that it runs for a store."""
    return _hidden(store) / "ui" / "server.json"


def _standing_server(store: Path) -> str | None:
    """The address of the server that `mergeflow ui` runs for this store."""
    note = living(server_of(store))
    return None if note is None else str(note["api"])


def home_of(store: Path) -> Path:
    """Where the embedded server of a store keeps its database."""
    return _hidden(store) / "prefect"


def remember_server(store: Path) -> None:
    """Note the embedded server that this process has started, so that it can be reaped."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "prefect" in " ".join(child.cmdline()):
                note = {"server": identity_of(child.pid), "client": identity_of(os.getpid())}
                write_json(_hidden(store) / "servers" / f"{os.getpid()}.json", note)


def forget_server(store: Path) -> bool:
    """Take back what `remember_server` noted: the server has been ended.

    Returns:
        Whether no other process has noted one for this store.
    """
    folder = _hidden(store) / "servers"
    (folder / f"{os.getpid()}.json").unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def reap_servers(store: Path) -> None:
    """End embedded servers whose client was killed and could not end them."""
    for file in (_hidden(store) / "servers").glob("*.json"):
        try:
            note = read_json(file)
        except InputError:
            file.unlink(missing_ok=True)  # no process can be found by it
            continue
        if _alive(note["client"]):
            continue
        server = _alive(note["server"])
        if server is not None:
            with suppress(psutil.Error):
                server.terminate()
                server.wait(timeout=10)
        file.unlink(missing_ok=True)


def wait_until_recorded(seconds: float = 20.0) -> None:
    """Wait until the embedded server has written down the last task runs.

    It dies with this process, and what it still holds in memory then would be missing in the UI.

    Args:
        seconds: gives up after so long.
    """
    if "PREFECT_API_URL" in os.environ:
        return
    from prefect.client.orchestration import get_client

    now = time.monotonic()
    end, since, before = now + seconds, now, -1
    with get_client(sync_client=True) as client:
        while time.monotonic() < min(end, since + 2.0):
            count = client.request("POST", "/task_runs/count", json={}).json()
            if count != before:
                before, since = count, time.monotonic()
            time.sleep(0.25)


def note_process(file: Path, pid: int, **others: str) -> None:
    """Write down a process, so that whoever reads it can tell whether it still lives."""
    write_json(file, {"process": identity_of(pid), **others})


def living(file: Path) -> dict[str, Any] | None:
    """What `note_process` wrote; None if the process is gone, or nothing was written."""
    with suppress(OSError, ValueError, KeyError):
        note: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return note if _alive(note["process"]) else None
    return None


def _hidden(store: Path) -> Path:
    return store.resolve() / ".mergeflow"


def identity_of(pid: int) -> list[float]:
    """A process's number and when it started, since numbers are given again."""
    return [pid, psutil.Process(pid).create_time()]


def _alive(identity: list[float]) -> psutil.Process | None:
    """The process of that number, if it is still the one that started at that time."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(identity[0]))
        if abs(process.create_time() - identity[1]) < 1 and process.is_running():
            return process
    return None
