"""What Prefect adds to a search: to a candidate, to a generation, at the start, when it resumes.

    python -m benchmarks.orchestration [SEARCH.yaml] [--runners local dask ray] [--candidates 60]
        [--generations 10 100 1000] [--json FILE]

`candidate, cold` and `candidate, cached`: a worker's time for each candidate beyond what merging
and answering themselves took, in milliseconds of wall and, for this process alone, of processor.
Each candidate answers one item, so that little else is measured. `first candidates` is what it
takes until each worker has answered one: it imports, and opens the models. `subflow` is a
generation's flow without tasks. `server`: until the embedded server answers, on a new database and
on an old one. `resume`: until a run with so many finished generations knows what is next. `search`:
what is neither merging nor answering, but estimating, reporting and Prefect, in a short search by
one process: milliseconds for each evaluation, and its share of the wall time in `seconds`.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

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

    from flows.workers import workers
    from tasks.side_by_side import Question, all_answered

    run, runner, at_once = Run.of(search, store), search.compute.runner, search.compute.workers
    bench = open_workbench(search, run.models)
    run.prepare(search, bench.contents)
    if runner == "local":
        bench.rehearse()
    genomes = np.random.default_rng(0).random((count + 2 * at_once, bench.space.dimension))
    asked = {name: [b.pool("search")[0].item_id] for name, b in bench.benchmarks.items()}
    questions = [
        Question(bench.space.decode(genome.tolist()).to_yaml(), asked, str(n), "search", "")
        for n, genome in enumerate(genomes)
    ]
    direct = 0.0
    if runner == "local":
        since = time.process_time()
        for question in questions:
            bench.evaluate(question.model, asked)
        direct = (time.process_time() - since) / len(questions)
    rows: list[dict[str, Any]] = []

    @flow(persist_result=False)
    def measured(what: str, first: int, last: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        answers = all_answered(run, questions[first:last], lambda _: None)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        done = [answer.evaluation for answer in answers if not answer.reused]
        spent = sum(one["seconds_merge"] + one["seconds_answer"] for one in done)
        number = last - first
        if runner == "local" and done:
            cpu -= direct * number  # it merges and answers itself
        rows.append(_row(what, runner, number, (wall * at_once - spent) / number, cpu / number))

    @flow(persist_result=False)
    def nothing() -> None: ...

    @flow(persist_result=False)
    def whole() -> None:
        quiet = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with quiet, workers(bench) as options:
            part = measured.with_options(result_storage=run.results, **options)
            part("first candidates", 0, 2 * at_once)
            part("candidate, cold", 2 * at_once, len(questions))
            part("candidate, cached", 2 * at_once, len(questions))
            since = time.perf_counter()
            for _ in range(5):
                nothing.with_options(**options)()
            rows.append(_row("subflow", runner, 5, (time.perf_counter() - since) / 5, None))

    whole()
    return rows


def searches(search: Search, store: Path) -> Iterator[dict[str, Any]]:
    """Yield the share of a search's wall time that is neither merging nor answering."""
    from flows.evolve import evolve

    since = time.perf_counter()
    run = Run(Path(evolve(search, str(store))))
    wall = time.perf_counter() - since
    events = [event for event in run.events() if not event["reused"]]
    spent = sum(event["seconds"] for event in events) / search.compute.workers
    row = _row("search", search.compute.runner, len(events), (wall - spent) / len(events), None)
    yield row | {"share": 1 - spent / wall, "seconds": wall}


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
        rows += searches(search, store / "whole")
        finished = Run(store / "whole" / "whole")
        rows += [resumed(finished, store, count) for count in given.generations]
        rows = [{"share": None, "seconds": None} | row for row in rows]
        keys = list(rows[0])[2:] + ["share", "seconds"]
        report("orchestration", [{key: row[key] for key in keys} for row in rows], given.json)


if __name__ == "__main__":
    main()
