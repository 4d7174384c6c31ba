"""The embedded server's start: what is left behind, and who hears Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.startup import Startup, spared_from_interrupts


@pytest.fixture
def environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.pop("PREFECT_HOME", None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("environment")
def test_a_refused_search_leaves_nothing_behind(tmp_path: Path) -> None:
    startup = Startup(tmp_path / "store")
    assert Path(os.environ["PREFECT_HOME"]).is_dir()
    startup.undo()
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("environment")
def test_a_refused_search_leaves_others_runs_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    Startup(tmp_path).undo()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.usefixtures("environment")
def test_a_standing_server_is_named(tmp_path: Path) -> None:
    os.environ["PREFECT_API_URL"] = "http://127.0.0.1:4200/api"
    startup = Startup(tmp_path / "store")
    startup.begin()
    assert startup.finish() == "Prefect: server at http://127.0.0.1:4200/api"
    startup.undo()
    assert not (tmp_path / "store").exists()


def test_an_interrupt_does_not_reach_what_was_spared() -> None:
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with spared_from_interrupts():
        spared = subprocess.Popen(command, stdout=subprocess.PIPE)
    other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with spared, other:
        for process in (spared, other):
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
        other.wait(timeout=20)
        time.sleep(0.2)
        assert spared.poll() is None
        spared.kill()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
