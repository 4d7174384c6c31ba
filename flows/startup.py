"""Prefect's embedded server starts while models and benchmarks are opened, which takes as long."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from flows.server import configure, forget_server, home_of, reap_servers, remember_server


class Startup:
    """The start of the embedded server, beside what the caller does meanwhile.

    Where PREFECT_API_URL names a standing server there is nothing to start.
    """

    def __init__(self, store: Path) -> None:
        """Set Prefect up, before anything imports it; nothing is started yet.

        Args:
            store: folder of run folders; the server's database goes into it.
        """
        home = home_of(store)
        self._store = store
        # What has to go again if the search is refused, the innermost first.
        self._made = [folder for folder in (home, home.parent, store) if not folder.exists()]
        self._thread: threading.Thread | None = None
        self._seconds: float | None = None
        reap_servers(store)
        configure(store)

    def begin(self) -> None:
        """Start the server; this returns when its process is there and noted, to be reaped."""
        if "PREFECT_API_URL" in os.environ:
            return
        # Prefect is imported here, as two threads that import can wait for each other.
        from prefect.server.api.server import SubprocessASGIServer

        self._server = SubprocessASGIServer()
        self._thread = threading.Thread(target=self._start, daemon=True)
        self._thread.start()
        self._wait_for_process()
        remember_server(self._store)

    def _wait_for_process(self) -> None:
        assert self._thread is not None
        while self._thread.is_alive() and self._server.server_process is None:
            time.sleep(0.01)

    def _start(self) -> None:
        since = time.perf_counter()
        # If it cannot start, Prefect tries again when it first needs it, and says why.
        with spared_from_interrupts(), suppress(RuntimeError, httpx.HTTPError):
            try:
                self._server.start()
            except AttributeError:
                # When the process ends, Prefect takes the server from under its own start.
                if self._server.server_process is not None:
                    raise
                return
            self._seconds = time.perf_counter() - since

    def finish(self) -> str:
        """Wait until the server runs.

        Returns:
            What the terminal says of it.
        """
        if "PREFECT_API_URL" in os.environ:
            return f"Prefect: server at {os.environ['PREFECT_API_URL']}"
        since = time.perf_counter()
        if self._thread is None:
            self.begin()
        assert self._thread is not None
        self._thread.join()
        waited = time.perf_counter() - since
        remember_server(self._store)
        if self._seconds is None:
            return "Prefect: the server has not started yet"
        return f"Prefect: server started in {self._seconds:.1f} s; waited {waited:.1f} s for it"

    def undo(self) -> None:
        """Leave nothing behind: the search was refused, or interrupted before it began."""
        if self._thread is not None:
            self._wait_for_process()
            if self._server.server_process is not None:
                self._server.server_process.terminate()
                self._server.server_process.wait()
        alone = forget_server(self._store)
        for folder in self._made:
            if alone and folder == home_of(self._store):
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def spared_from_interrupts() -> Iterator[None]:
    """Processes that are started within do not hear Ctrl-C, nor do their own.

    A terminal sends it to all of them. The command ends them itself, once what it is doing is
    written down; a server that is gone before would be asked in vain for a minute.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
