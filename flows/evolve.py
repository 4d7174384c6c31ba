"""A whole search, from the search file to the report."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.finish import UNIFORM_FINALISTS, finish
from flows.generation import generation
from flows.prepare import PREPARED, prepare
from flows.progress import progress
from flows.quiet import be_quiet
from flows.race import evaluations_in
from flows.runners import check_runner
from flows.server import remember_server
from flows.workers import workers
from mergelib.deciding import contenders_of_rounds
from mergelib.ledger import is_reported
from mergelib.runs import Run
from mergelib.search import Search
from mergelib.search_file import with_absolute_paths
from mergelib.stopping import reason_to_stop
from mergelib.workbench import Workbench, open_workbench
from tasks.showing import Showcase, tagged
from tasks.side_by_side import handing_out_early


def evaluations_left(run: Run, bench: Workbench) -> int:
    """How many evaluations a run still needs, for the progress bar."""
    search = bench.search
    left = 0
    if not run.has(*PREPARED):
        left += len(bench.checkpoints) + search.fitness.calibration.models
        left += len(bench.space.uniform_sweep())
    generations = range(run.search.evolution.generations)
    todo = sum(not run.has_generation(number) for number in generations)
    left += todo * evaluations_in(search)
    if todo or not is_reported(run):
        finalists = run.search.finalists
        deciding = [finalists + UNIFORM_FINALISTS]
        if not search.front:
            deciding = [n + UNIFORM_FINALISTS for n in contenders_of_rounds(finalists)]
        left += sum(deciding)
        left += len(bench.checkpoints)
        left += finalists // 2 + UNIFORM_FINALISTS if search.front else finalists + 1
    return left


def share_done(run: Run, bench: Workbench) -> float:
    """The share of a run's evaluations that is done, 0 to 1."""
    done = len({event["key"] for event in run.events()})
    return done / (done + evaluations_left(run, bench))


def _next_generation(run: Run, options: Mapping[str, Any]) -> None:
    number, of = run.finished_generations(), run.search.evolution.generations
    name = f"generation {number + 1} of {of}"
    start = time.perf_counter()
    best = generation.with_options(flow_run_name=name, **options)(str(run.folder), number)
    progress.generation(number, of, best, time.perf_counter() - start)


@flow(
    name="evolve",
    flow_run_name="evolve {search.name}",
    persist_result=False,
    result_serializer="json",
)
def evolve(search: Search, store: str = "runs") -> str:
    """Evolve a merge: the same search in the same store goes on where it stopped.

    Args:
        search: what to merge, how, and for which benchmarks.
        store: folder of run folders; finished answers are shared between its runs.

    Returns:
        The run folder.

    Raises:
        InputError: something in the search does not hold; nothing has been written then.
        SearchError: the search cannot go on; what is finished is kept.
    """
    be_quiet()
    check_runner(search.compute)
    search = with_absolute_paths(search, Path.cwd())
    run = Run.of(search, Path(store))
    search = run.settled(search)
    bench = open_workbench(search, run.models)
    folder = str(run.folder)
    # A heartbeat thread for each subflow would cost a second; the parent's is enough.
    quiet = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with run.lock() as left, quiet, tagged(search):
        if left:
            progress.say(f"  {left}")
        run.prepare(search, bench.contents)
        if changed := run.other_versions():
            progress.say(f"  begun with {'; '.join(changed)}: results may differ from one run")
        remember_server(run.folder.parent)
        todo = evaluations_left(run, bench)
        with progress.of(search.name, todo), workers(bench) as handing_out:
            options = {"result_storage": run.results, **handing_out}
            if not run.has(*PREPARED):
                prepare.with_options(**options)(folder)
            showcase = Showcase(run, lambda: share_done(run, bench))
            with handing_out_early():
                while (stopped := reason_to_stop(run)) is None:
                    showcase.update()
                    _next_generation(run, options)
            progress.say(f"  {stopped}")
            if not is_reported(run):
                showcase.update()
                finish.with_options(**options)(folder)
            showcase.finish()
    return folder
