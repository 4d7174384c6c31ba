"""A standing server on PostgreSQL, where PostgreSQL is installed."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import DATA
from tests.flows.test_cli import COMMAND, environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _programs() -> Path:
    """The folder of initdb, which Debian does not put on the path."""
    found = shutil.which("initdb") or next(
        map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None
    )
    if found is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    return Path(found).parent


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty database in a cluster of its own."""
    programs, port = _programs(), _free_port()
    # PostgreSQL refuses to run as root.
    other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    made = [*other, "mktemp", "-d"]
    folder = subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip()
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [*other, str(programs / "pg_ctl"), "-D", f"{folder}/data", "-w"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    try:
        initdb = [str(programs / "initdb"), "-D", f"{folder}/data", "-A", "trust", "-U", "prefect"]
        subprocess.run([*other, *initdb], **quiet)
        subprocess.run([*control, "-l", f"{folder}/log", "-o", options, "start"], **quiet)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
    finally:
        subprocess.run([*other, "rm", "-rf", folder], check=False)


@pytest.fixture
def api(database: str, tmp_path: Path) -> Iterator[str]:
    """The address of a Prefect server on that database."""
    port = _free_port()
    settings = {
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, *command], env={**environment(), **settings}, stdout=log, stderr=log
        )
    address, end = f"http://127.0.0.1:{port}/api", time.monotonic() + 180
    try:
        while True:
            try:
                assert httpx.get(f"{address}/health").json() is True
                break
            except httpx.HTTPError:
                assert server.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_flow_runs_and_artifacts_are_kept_in_postgresql(api: str, tmp_path: Path) -> None:
    few = ["--set", "benchmarks.0.search_items=20", "--set", "benchmarks.0.fresh_items=20"]
    task = ["-b", str(DATA / "benchmarks" / "zoo_ja.yaml"), *few]
    store = ["--store", str(tmp_path / "runs"), "--name", "in-postgres"]
    done = subprocess.run(
        [*COMMAND, "compare", str(DATA / "zoo" / "math"), *task, *store],
        env={**environment(), "PREFECT_API_URL": api},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "zoo_ja: 40 items" in done.stdout
    (run,) = httpx.post(f"{api}/flow_runs/filter", json={}).json()
    assert (run["name"], run["state_name"]) == ("compare", "Completed")
    (artifact,) = httpx.post(f"{api}/artifacts/filter", json={}).json()
    assert artifact["key"] == "in-postgres-comparison"
