"""The embedded server's start: what is left behind, and who hears Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from flows.server import reap_servers
from flows.startup import Startup, spared_from_interrupts
from mergelib.files import write_json
from tests.conftest import small_search
from tests.flows.test_cli import environment as users_environment

_HELD_UP = """
import time
from flows import cli

def hold_up(search, store):
    print("opening", flush=True)
    time.sleep(60)

cli._is_checked_and_finished = hold_up
cli.main()
"""
"""The command, whose opening of models and benchmarks takes a minute."""


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
def test_a_refused_search_leaves_a_database_that_another_process_uses_by_now(
    tmp_path: Path,
) -> None:
    startup = Startup(tmp_path / "store")
    write_json(tmp_path / "store" / ".mergeflow" / "servers" / "1.json", {})
    database = Path(os.environ["PREFECT_HOME"]) / "prefect.db"
    database.touch()
    startup.undo()
    assert database.exists()


@pytest.mark.usefixtures("environment")
def test_a_standing_server_is_named(tmp_path: Path) -> None:
    os.environ["PREFECT_API_URL"] = "http://127.0.0.1:4200/api"
    startup = Startup(tmp_path / "store")
    startup.begin()
    assert startup.finish() == "Prefect: server at http://127.0.0.1:4200/api"
    startup.undo()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_search_that_is_ended_while_models_are_opened_leaves_no_server(
    number: signal.Signals, tmp_path: Path
) -> None:
    """On SIGTERM nothing at all; a killed one leaves its server to be reaped by the next."""
    file, store = tmp_path / "search.yaml", tmp_path / "store"
    file.write_text(yaml.safe_dump(small_search()), encoding="utf-8")
    command = [sys.executable, "-c", _HELD_UP, "evolve", str(file), "--store", str(store)]
    process = subprocess.Popen(command, env=users_environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "opening":
            assert process.poll() is None
        (note,) = (store / ".mergeflow" / "servers").glob("*.json")
        server = psutil.Process(int(json.loads(note.read_text())["server"][0]))
        assert server.ppid() == process.pid
        process.send_signal(number)
        assert process.wait(timeout=30) == (130 if number == signal.SIGTERM else -number)
    finally:
        process.kill()
        process.wait()
    if number == signal.SIGKILL:
        assert server.is_running()
        reap_servers(store)
        assert not note.exists()
    else:
        assert not store.exists()
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_an_interrupt_does_not_reach_what_was_spared() -> None:
    # What tests run in the background start would not hear SIGINT.
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = hears + "import time; print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code]
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
