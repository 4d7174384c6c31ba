"""One Prefect test server for all flow tests, and small searches run once."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.evolve import evolve
from mergelib.runs import Run
from mergelib.search import parse_search
from tests.conftest import DATA, small_search


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[None]:
    """A temporary Prefect server and database."""
    os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    with prefect_test_harness(server_startup_timeout=180):
        yield


def run_search(content: dict[str, Any], store: Path) -> Run:
    """Run a search in this process; returns its run folder."""
    return Run(Path(evolve(parse_search(content, "test"), str(store))))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that the session's finished runs share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def finished(store: Path) -> Run:
    """A finished search with one objective."""
    return run_search(small_search(), store)


@pytest.fixture
def own_store(finished: Run, tmp_path: Path) -> Path:
    """A store with the finished search's results, and no runs."""
    store = tmp_path / "store"
    shutil.copytree(finished.results, store / ".mergeflow" / "results")
    return store


@pytest.fixture(scope="session")
def finished_front(store: Path) -> Run:
    """A finished search with two objectives."""
    content = small_search()
    content["name"] = "front"
    content["endpoints"].append(str(DATA / "zoo" / "de"))
    second = {**content["objectives"][0], "benchmark": str(DATA / "benchmarks" / "zoo_de.yaml")}
    content["objectives"].append(second)
    content["evolution"] = {"algorithm": "nsga2", "population": 6, "generations": 2}
    content["finalists"] = 4
    return run_search(content, store)
