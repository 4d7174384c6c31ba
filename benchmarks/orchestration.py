"""What Prefect adds to a search: to a candidate, to a generation, at the start, when it resumes.

    python -m benchmarks.orchestration [SEARCH.yaml] [--runners local dask ray] [--candidates 60]
        [--generations 10 100 1000] [--json FILE]

`candidate, cold` and `candidate, cached`: a worker's time for each candidate beyond what merging
and answering themselves took, in milliseconds of wall; `cpu_milliseconds` is what all processes
computed for it, those of the runner and Prefect's server included, and with `cold` the merging and
answering. Each candidate answers one item, so that little else is measured. `first candidates` is
what it takes until each worker has answered one: it imports, and opens the models. `subflow` is a
generation's flow without tasks. `server`: until the embedded server answers, on a new database and
on an old one. `resume`: until a run with so many finished generations knows what is next. `search`:
what is neither merging nor answering, but estimating, reporting and Prefect, in a short search by
one process: milliseconds for each evaluation, and its share of the wall time in `seconds`, where a
candidate of the generations took the seconds in `candidate`; `search, slow`: the same with more
items, one at a time. `generation`: from the start of one generation of these to the next one's,
beyond merging and answering.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.record import report
from flows.startup import Startup
from mergelib.runs import Run
from mergelib.search import Search
from mergelib.search_file import load_search
from mergelib.shipped import shipped
from mergelib.stopping import reason_to_stop
from mergelib.workbench import open_workbench

SHORT = ("fitness.items=30", "evolution.population=12", "evolution.generations=2")
"""What makes the shipped search short enough to be repeated."""

SLOW = (
    "fitness.items=130",
    "compute.batch=1",
    "fitness.calibration.models=4",
    "evolution.generations=8",
)
"""What makes its candidates take about two seconds, in generations of four."""


def _row(what: str, runner: str, count: int, wall: float, cpu: float | None) -> dict[str, Any]:
    """A record; wall and processor time of one of `count`, in seconds."""
    milliseconds = None if cpu is None else 1e3 * cpu
    return {
        "what": what,
        "runner": runner,
        "count": count,
        "milliseconds": 1e3 * wall,
        "cpu_milliseconds": milliseconds,
    }


def server_starts(store: Path) -> Iterator[dict[str, Any]]:
    """Yield how long the embedded server takes; the last one goes on running."""
    from prefect.server.api.server import SubprocessASGIServer

    for database in ("new", "old"):
        SubprocessASGIServer().stop()
        since = time.perf_counter()
        startup = Startup(store)
        startup.begin()
        startup.finish()
        yield _row(f"server, {database} database", "", 1, time.perf_counter() - since, None)


def candidates(search: Search, store: Path, count: int) -> list[dict[str, Any]]:
    """What one runner adds to each of so many candidates, cold and cached."""
    from prefect import flow
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from benchmarks.rounds import round_of
    from flows.workers import workers

    run, runner, at_once = Run.of(search, store), search.compute.runner, search.compute.workers
    bench = open_workbench(search, run.models)
    run.prepare(search, bench.contents)
    if runner == "local":
        bench.rehearse()
    rows: list[dict[str, Any]] = []

    @flow(persist_result=False)
    def nothing() -> None: ...

    @flow(persist_result=False)
    def whole() -> None:
        quiet = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with quiet, workers(bench) as options:
            part = round_of.with_options(result_storage=run.results, **options)
            last = count + 2 * at_once
            for what, first, end in (
                ("first candidates", 0, 2 * at_once),
                ("candidate, cold", 2 * at_once, last),
                ("candidate, cached", 2 * at_once, last),
            ):
                cpu = _cpu()
                took = part(str(run.folder), first, end)
                number, cpu = end - first, _cpu() - cpu
                wall = took.wall * at_once - took.spent
                rows.append(_row(what, runner, number, wall / number, cpu / number))
            since = time.perf_counter()
            for _ in range(5):
                nothing.with_options(**options)()
            rows.append(_row("subflow", runner, 5, (time.perf_counter() - since) / 5, None))

    whole()
    return rows


def _cpu() -> float:
    """What this process and all that it has started have computed, in seconds."""
    own = psutil.Process()
    spent = 0.0
    for one in (own, *own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            spent += times.user + times.system
    return spent


def searches(what: str, search: Search, store: Path) -> Iterator[dict[str, Any]]:
    """Yield what of a search's wall time, and of its generations', is neither merge nor answer."""
    from flows.evolve import evolve

    since = time.perf_counter()
    run = Run(Path(evolve(search, str(store))))
    wall = time.perf_counter() - since
    events = [event for event in run.events() if not event["reused"]]
    spent = sum(event["seconds"] for event in events) / search.compute.workers
    row = _row(what, search.compute.runner, len(events), (wall - spent) / len(events), None)
    candidates = [event["seconds"] for event in events if event["stage"] == "search"]
    yield row | {"share": 1 - spent / wall, "seconds": wall, "candidate": median(candidates)}
    beyond, shares = [], []
    for number, (start, end) in enumerate(pairwise(_starts(run)), 1):
        own = [event["seconds"] for event in events if event["label"].startswith(f"{number}.")]
        beyond.append(end - start - sum(own) / search.compute.workers)
        shares.append(beyond[-1] / (end - start))
    row = _row(f"{what}: generation", search.compute.runner, len(beyond), median(beyond), None)
    yield row | {"share": median(shares)}


def _starts(run: Run) -> list[float]:
    """When each generation of a run began, in seconds, by Prefect's own books."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters

    tag = f"search:{run.search.name}"
    ours = filters.FlowRunFilter(tags=filters.FlowRunFilterTags(all_=[tag]))
    named = filters.FlowFilter(name=filters.FlowFilterName(any_=["generation"]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=named, flow_run_filter=ours)
    return sorted(one.start_time.timestamp() for one in runs if one.start_time is not None)


def resumed(finished: Run, store: Path, generations: int) -> dict[str, Any]:
    """How long a run with so many finished generations takes to know that it is to go on."""
    run = Run(store / f"long-{generations}")
    shutil.copytree(finished.folder, run.folder)
    for number in range(generations):
        for folder, ending in (("generations", "parquet"), ("state", "json")):
            source = finished.path(f"{folder}/0001.{ending}")
            shutil.copy(source, run.path(f"{folder}/{number:04d}.{ending}"))
        shutil.copy(
            finished.path("state/0001.spent.json"), run.path(f"state/{number:04d}.spent.json")
        )
    since = time.perf_counter()
    done, _ = run.finished_generations(), reason_to_stop(run)
    wall = time.perf_counter() - since
    assert done == generations
    return _row("resume", "", generations, wall, None)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("search", nargs="?", type=Path, default=shipped("searches") / "zoo-ja.yaml")
    parser.add_argument("--runners", nargs="+", default=["local", "dask", "ray"])
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--generations", nargs="*", type=int, default=[10, 100, 1000])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        startup = Startup(store)  # before anything imports Prefect
        rows = list(server_starts(store))
        startup.finish()
        for runner in given.runners:
            at_once = 1 if runner == "local" else 2
            own = [f"compute.runner={runner}", f"compute.workers={at_once}"]
            search = load_search(given.search, [*SHORT, *own, "name=candidates"])
            # Each runner has a store of its own, as they would find each other's answers.
            rows += candidates(search, store / runner, given.candidates)
        search = load_search(given.search, [*SHORT, "name=whole"])
        rows += searches("search", search, store / "whole")
        slow = load_search(given.search, [*SLOW, "name=slow"])
        rows += searches("search, slow", slow, store / "slow")
        finished = Run(store / "whole" / "whole")
        rows += [resumed(finished, store, count) for count in given.generations]
        more = dict.fromkeys(("share", "seconds", "candidate"))
        rows = [more | row for row in rows]
        keys = [*list(rows[0])[len(more) :], *more]
        report("orchestration", [{key: row[key] for key in keys} for row in rows], given.json)


if __name__ == "__main__":
    main()
