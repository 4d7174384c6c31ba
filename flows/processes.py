"""Processes of Prefect's that `mergeflow ui` starts, waits for and stops."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from mergelib.errors import InputError, MergeflowError

PATIENCE = 180.0
"""Seconds that a server may take to start; a new database on a busy machine needs a minute."""


def run_prefect(command: tuple[str, ...], place: Path, environment: Mapping[str, str]) -> None:
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
def running(
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
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
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


def answers(api: str) -> bool:
    """Whether a Prefect server is at this address."""
    with suppress(httpx.HTTPError, ValueError):
        return httpx.get(f"{api}/health", timeout=5).json() is True
    return False


def wait_for(api: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server that was started answers.

    Raises:
        MergeflowError: it has ended, or is not there in `PATIENCE` seconds.
    """
    end = time.monotonic() + PATIENCE
    while not answers(api):
        if server.poll() is not None:
            raise MergeflowError(f"Prefect's server did not start; see {log}")
        if time.monotonic() > end:
            raise MergeflowError(f"Prefect's server does not answer at {api}; see {log}")
        time.sleep(0.25)


def refuse_taken(port: int) -> None:
    """Raise an InputError if something listens at a port of this machine."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise InputError(f"--port {port}: in use, and not by Prefect; give another")


def free_port(first: int) -> int:
    """The first port from a number on that nothing listens at."""
    for port in range(first, first + 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise InputError(f"--port: nothing is free from {first} to {first + 99}")
