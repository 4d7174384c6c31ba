"""Candidates answer in worker processes: the same search, to the bit, whoever answers."""

import json
import os
import shutil
import ssl
import threading
import time
from pathlib import Path

import pytest
from prefect import flow, task
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from benchmarks.killed_workers import workers_of
from flows import workers
from flows.runners import check_runner
from mergelib.errors import InputError
from mergelib.runs import Run
from mergelib.search import parse_search
from mergelib.sections.compute import Compute
from mergelib.workbench import open_workbench
from tasks.candidates import answer, entered
from tests.conftest import small_search
from tests.flows.conftest import run_search
from tests.flows.test_evolve import decided


def _search_by(runner: str, store: Path) -> Run:
    pytest.importorskip(f"prefect_{runner}", reason=f"mergeflow[{runner}] is not installed")
    content = small_search()
    content["compute"] = {"runner": runner, "workers": 2}
    return run_search(content, store)


def _answered(run: Run) -> list[tuple[str, str]]:
    """The journal's evaluations in its order, without what may differ."""
    return [(event["key"], event["stage"]) for event in run.events()]


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_the_search_is_the_same_though_a_worker_is_killed(
    runner: str, finished: Run, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one(journal: Path) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and not killed:
            time.sleep(0.02)
            if not journal.exists() or len(journal.read_bytes().splitlines()) < 2:
                continue
            for worker in workers_of(os.getpid()):
                if worker.cpu_times().user > 1:
                    worker.kill()
                    killed.append(worker.pid)
                    break

    killer = threading.Thread(target=kill_one, args=(tmp_path / "small" / "journal.jsonl",))
    killer.start()
    run = _search_by(runner, tmp_path)
    killer.join()
    assert killed
    assert decided(run) == decided(finished)
    assert _answered(run) == _answered(finished)
    winner = "winner/model.safetensors"
    assert run.path(winner).read_bytes() == finished.path(winner).read_bytes()
    assert json.loads(run.path("ledger.json").read_text())["answered_twice"] == 0
    assert not workers_of(os.getpid())


def test_a_worker_that_dask_has_given_up_is_replaced() -> None:
    """Dask alone would have no worker from then on, and a search would wait for ever."""
    distributed = pytest.importorskip("distributed", reason="mergeflow[dask] is not installed")
    with (
        workers._dask(Compute(runner="dask"), 0) as runner,
        distributed.Client(runner.address) as client,
    ):
        before = client.submit(os.getpid).result(timeout=60)
        clusters = distributed.SpecCluster._instances
        cluster = next(one for one in clusters if one.scheduler_address == runner.address)
        (nanny,) = cluster.workers.values()
        cluster.sync(nanny.close)
        assert client.submit(os.getpid).result(timeout=60) not in (before, os.getpid())


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_what_one_subflow_hands_out_the_next_one_takes_in(
    runner: str, finished: Run, tmp_path: Path
) -> None:
    pytest.importorskip(f"prefect_{runner}", reason=f"mergeflow[{runner}] is not installed")
    content = small_search() | {"compute": {"runner": runner, "workers": 2}}
    bench = open_workbench(parse_search(content, "test"), finished.models)
    out: list[PrefectFuture[int]] = []

    @task(persist_result=False)
    def slow(begun: str, released: str) -> int:
        Path(begun).touch()
        while not Path(released).exists():
            time.sleep(0.05)
        return os.getpid()

    @flow(persist_result=False)
    def hands_out() -> None:
        out.append(slow.submit(str(tmp_path / "begun"), str(tmp_path / "released")))
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)

    @flow(persist_result=False)
    def takes_in() -> int:
        (tmp_path / "released").touch()
        return out[0].result()

    @flow(persist_result=False)
    def both() -> int:
        with workers.workers(bench) as options:
            hands_out.with_options(**options)()
            return takes_in.with_options(**options)()

    assert both() != os.getpid()


@pytest.mark.parametrize(
    ("number", "gpus", "share"),
    [(2, 0, 0), (1, 4, 1), (4, 4, 1), (3, 2, 1 / 2), (4, 2, 1 / 2), (7, 2, 1 / 4)],
)
def test_all_workers_find_room_on_the_gpus(number: int, gpus: int, share: float) -> None:
    assert workers._share(number, gpus) == share
    if gpus:
        assert gpus * int(1 / share) >= number


def test_workers_parse_certificates_for_servers_with_tls_only(tmp_path: Path) -> None:
    for address, trusted in (("http://127.0.0.1:1/api", 1), ("https://prefect/api", None)):
        with temporary_settings({PREFECT_API_URL: address, PREFECT_HOME: tmp_path}):
            file = workers._environment().get("PREFECT_API_SSL_CERT_FILE")
        assert (file and len(ssl.create_default_context(cafile=file).get_ca_certs())) == trusted


def test_answers_of_another_device_or_type_are_refused(
    finished: Run, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of GPU workers for a head without one: each works the key out by itself."""
    shutil.copytree(finished.folder, own_store / "small")
    run = Run(own_store / "small")
    bench, before = run.workbench(), len(list(run.events()))
    asked = {name: [pool.pool("search")[0].item_id] for name, pool in bench.benchmarks.items()}
    state = answer.with_options(result_storage=run.results)(
        str(run.folder), bench.search.base, asked, "base", return_state=True
    )
    monkeypatch.setitem(vars(bench), "dtype", "bfloat16")
    key = bench.evaluation_digest(bench.search.base, asked)
    with pytest.raises(InputError, match=r"compute\.cluster: .* this process \(cpu, bfloat16\)"):
        entered(run, bench.search.base, asked, "base", "search", state)
    assert not list(run.results.rglob(key))
    assert len(list(run.events())) == before


def test_a_runner_that_is_not_installed_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.runners.find_spec", lambda name: None)
    check_runner(Compute())
    with pytest.raises(InputError, match=r"compute\.runner: ray .* pip install 'mergeflow\[ray\]'"):
        check_runner(Compute(runner="ray"))
