"""Embedded servers that a killed process left behind."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from flows.server import configure, reap_servers
from mergelib.files import write_json


def _note(store: Path, server: psutil.Process, client: list[float]) -> Path:
    note = store / ".mergeflow" / "servers" / "1.json"
    write_json(note, {"server": [server.pid, server.create_time()], "client": client})
    return note


def test_a_server_whose_client_is_gone_is_ended(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as server:
        note = _note(tmp_path, psutil.Process(server.pid), [2**22 - 1, 0.0])
        reap_servers(tmp_path)
        assert not psutil.pid_exists(server.pid)
    assert not note.exists()


def test_a_server_in_use_and_a_process_that_took_its_number_are_left_alone(
    tmp_path: Path,
) -> None:
    me = psutil.Process()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        server = psutil.Process(process.pid)
        note = _note(tmp_path, server, [me.pid, me.create_time()])
        reap_servers(tmp_path)
        assert note.exists()
        write_json(note, {"server": [server.pid, 1.0], "client": [2**22 - 1, 0.0]})
        reap_servers(tmp_path)
        assert process.poll() is None
        assert not note.exists()
        process.kill()


def test_what_the_environment_says_is_kept(tmp_path: Path, monkeypatch: object) -> None:
    before = dict(os.environ)
    try:
        os.environ.pop("PREFECT_API_URL", None)
        os.environ["PREFECT_LOGGING_LEVEL"] = "DEBUG"
        os.environ.pop("PREFECT_HOME", None)
        configure(tmp_path)
        assert os.environ["PREFECT_LOGGING_LEVEL"] == "DEBUG"
        assert Path(os.environ["PREFECT_HOME"]).is_dir()
        os.environ["PREFECT_API_URL"] = "http://127.0.0.1:4200/api"
        del os.environ["PREFECT_HOME"]
        configure(tmp_path)
        assert "PREFECT_HOME" not in os.environ
    finally:
        os.environ.clear()
        os.environ.update(before)
