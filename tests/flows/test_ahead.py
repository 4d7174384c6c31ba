"""Generations that are asked before the last one has been told."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from mergelib.asking import genomes_of, state_before
from mergelib.errors import InputError
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.runs import Run
from mergelib.search import parse_search
from mergelib.stopping import reason_to_stop
from tests.conftest import small_search
from tests.flows.conftest import run_search
from tests.flows.test_evolve import decided


def _ahead(**evolution: Any) -> dict[str, Any]:
    content = small_search()
    content["name"] = "ahead"
    content["evolution"] = {"algorithm": "bayesian", "population": 4, "generations": 4, "ahead": 1}
    content["evolution"] |= evolution
    return content


@pytest.fixture(scope="module")
def local(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search that asks ahead, in one process."""
    store = tmp_path_factory.mktemp("local")
    shutil.copytree(finished.results, store / ".mergeflow" / "results")
    return run_search(_ahead(), store)


def test_a_generation_is_asked_from_the_one_before_the_last(local: Run) -> None:
    algorithm = ALGORITHMS["bayesian"]
    genomes = [local.generation(number)["genome"].to_pylist() for number in range(4)]
    assert genomes[0] == algorithm.ask(state_before(local, 0))
    for number in range(1, 4):
        before = state_before(local, number - 1)
        assert genomes[number] == algorithm.ask(before, [genomes[number - 1]])
        assert genomes[number] != algorithm.ask(state_before(local, number))


def test_what_is_asked_early_is_what_is_asked_in_time(local: Run, tmp_path: Path) -> None:
    """As it was with so many generations told, up to as far ahead as may be asked."""
    earlier = Run(tmp_path / "ahead")
    shutil.copytree(local.folder, earlier.folder)
    for done in (3, 2, 1, 0):
        earlier.path(f"state/{done:04d}.json").unlink()
        for number in range(done, min(done + 2, 4)):
            told = local.generation(number)["genome"].to_pylist()
            assert genomes_of(earlier, number) == told


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_workers_go_on_with_the_next_generation(
    runner: str, local: Run, finished: Run, tmp_path: Path
) -> None:
    pytest.importorskip(f"prefect_{runner}", reason=f"mergeflow[{runner}] is not installed")
    content = _ahead() | {"name": f"ahead-{runner}"}
    content["compute"] = {"runner": runner, "workers": 2}
    run = run_search(content, tmp_path)
    assert decided(run) == decided(local)
    assert run.json("ledger.json")["answered_twice"] == 0
    # With two workers three candidates are out: the first of the second generation as soon as two
    # of the first generation's four are back.
    labels = [event["label"] for event in run.events()]
    assert [label for label in labels if label.startswith("2.")] == ["2.1", "2.2", "2.3", "2.4"]
    assert {"2.1", "2.2"} <= _answered_in(f"evolve {content['name']}", "generation 1 of 4")


def _answered_in(evolve: str, generation: str) -> set[str]:
    """Which candidates Prefect has as task runs of a generation's flow run."""
    with get_client(sync_client=True) as client:
        named = FlowRunFilter(name=FlowRunFilterName(any_=[evolve]))
        (parent,) = client.read_flow_runs(flow_run_filter=named)
        named = FlowRunFilter(name=FlowRunFilterName(any_=[generation]))
        (own,) = [
            run
            for run in client.read_flow_runs(flow_run_filter=named)
            if _root(client, run.parent_task_run_id) == parent.id
        ]
        by_flow = FlowRunFilter(id={"any_": [own.id]})
        return {run.name.split(",")[0] for run in client.read_task_runs(flow_run_filter=by_flow)}


def _root(client: Any, task_run: Any) -> Any:
    return client.read_task_run(task_run).flow_run_id


def test_a_rule_stops_by_what_was_known_when_it_was_asked(local: Run, tmp_path: Path) -> None:
    after = [local.spent(number)["items"] for number in range(4)]
    content = _ahead(stop={"answers": after[1]})
    shutil.copytree(local.results, tmp_path / ".mergeflow" / "results")
    run = run_search(content, tmp_path)
    # Met by the second generation, when the third had been asked.
    assert run.finished_generations() == 3
    assert "items were answered" in str(reason_to_stop(run))
    assert reason_to_stop(run, 2) is None
    content["evolution"]["stop"] = {}
    assert decided(run_search(content, tmp_path)) == decided(local)


def test_who_must_be_told_first_is_refused() -> None:
    with pytest.raises(InputError, match=r"evolution\.ahead: cma_es must be told .* ahead: 0, or"):
        parse_search(_ahead(algorithm="cma_es"), "search.yaml")
