"""A search under a Prefect worker is cancelled, then its process is killed; the third run ends it.

    python -m benchmarks.worker_faults [--seed 0] [--json FILE]

Starts `prefect server start`, a process work pool, a deployment of the search's flow and a worker
on localhost, all with a database of their own. A run of the deployment is cancelled as Prefect's UI
does it, the next one's process is killed (SIGKILL), and a third one is left alone: each goes on
with the same search, at moments drawn from the seed. `seconds_to_gone` is how long it took until
the process was gone, `seconds_to_state` until Prefect said `state`; for the last run, until it was
done. `differing` counts files of the finished run that an undisturbed one has otherwise,
`answered_again` evaluations done twice.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from benchmarks.kills import decided, environment, free_port, standing_server, undisturbed
from benchmarks.record import report
from benchmarks.resuming import search_of
from flows.evolve import evolve
from mergelib.runs import Run
from mergelib.search import parse_search

_POOL = "faults"
_ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def worker(env: dict[str, str]) -> Iterator[None]:
    """A work pool and its worker, ended with all that it started."""
    prefect = [sys.executable, "-m", "prefect"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    create = [*prefect, "work-pool", "create", _POOL, "--type", "process"]
    subprocess.run(create, env=env, check=True, **quiet)
    start = [*prefect, "worker", "start", "--pool", _POOL, "--type", "process"]
    with subprocess.Popen(start, env=env, cwd=_ROOT, start_new_session=True, **quiet) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def faults(seed: int, store: Path) -> list[dict[str, Any]]:
    """Run the three."""
    search = parse_search(search_of(4, 3), "benchmark").model_dump(mode="json")
    asyncio.run(_deploy())
    run, chance, rows = Run(store / "long"), random.Random(seed), []
    parameters = {"search": search, "store": str(store)}
    evaluations = 0
    for state in ("CANCELLED", "CRASHED", "COMPLETED"):
        evaluations += chance.randint(4, 10)
        begun = run_deployment("evolve/faults", parameters=parameters, timeout=0)
        if state != "COMPLETED":
            while len({event["key"] for event in run.events()}) < evaluations:
                time.sleep(0.05)
        (process,) = _processes_of(store) or [None]
        start = time.perf_counter()
        with get_client(sync_client=True) as client:
            if state == "CANCELLED":
                client.set_flow_run_state(begun.id, Cancelling())
            elif process is not None and state == "CRASHED":
                process.kill()
            gone = None
            while (now := client.read_flow_run(begun.id).state) is None or not now.is_final():
                if gone is None and not _processes_of(store) and state != "COMPLETED":
                    gone = time.perf_counter() - start
                time.sleep(0.1)
        rows.append(
            {
                "state": now.type.value,
                "expected": state,
                "seconds_to_gone": gone,
                "seconds_to_state": time.perf_counter() - start,
            }
        )
    return rows


async def _deploy() -> None:
    remote = await evolve.from_source(str(_ROOT), "flows/evolve.py:evolve")
    await remote.deploy(name="faults", work_pool_name=_POOL, print_next_steps=False)


def _processes_of(store: Path) -> list[psutil.Process]:
    """Which process holds the run, by its lock's file."""
    told = (store / "long" / ".lock").read_text().split() if (store / "long").exists() else []
    number = int(told[1]) if told else 0
    return [psutil.Process(number)] if number and psutil.pid_exists(number) else []


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "search.yaml").write_text(json.dumps(search_of(4, 3)), encoding="utf-8")
        expected = decided(undisturbed(folder / "search.yaml", folder / "undisturbed"))
        address = f"http://127.0.0.1:{port}/api"
        env = environment(PREFECT_API_URL=address, PREFECT_HOME=str(folder / "client"))
        here = temporary_settings({PREFECT_API_URL: address})
        with standing_server(folder / "server", port), worker(env), here:
            rows = faults(arguments.seed, folder / "store")
        run = Run(folder / "store" / "long")
        found = decided(run)
        names = expected.keys() | found.keys()
        again = json.loads(run.path("ledger.json").read_text())["answered_twice"]
        for row in rows:
            row["differing"] = sum(found.get(name) != expected.get(name) for name in names)
            row["answered_again"] = again
    report("worker_faults", rows, arguments.json)


if __name__ == "__main__":
    main()
