"""A search that a schedule extends night after night."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from prefect import flow, runtime
from pydantic import Field

from flows.evolve import evolve
from flows.quiet import be_quiet
from flows.runners import check_runner
from mergelib.nights import tonight
from mergelib.runs import Run
from mergelib.search import Search
from mergelib.search_file import with_absolute_paths
from mergelib.workbench import open_workbench


@flow(name="nightly-evolve", flow_run_name="a night of {search.name}", persist_result=False)
def nightly(
    search: Search,
    store: str = "runs",
    hours: Annotated[
        float, Field(gt=0, description="Hours of merging and answering in one night")
    ] = 6.0,
) -> str:
    """Extend a search by one night's budget: it goes on where it stopped, and ends with a report.

    Args:
        search: what to evolve; its generations are the most of one night, its stop rules (a target,
            a plateau, a total of hours or answers) end the whole search.
        store: folder of run folders.
        hours: of merging and answering in one night; the finalists' answers at the end come on top.

    Returns:
        The run folder.

    Raises:
        InputError: something in the search does not hold; nothing has been written then.
    """
    be_quiet()
    search = with_absolute_paths(search, Path.cwd())
    check_runner(search.compute)
    run = Run.of(search, Path(store))
    run.check_free()
    contents = open_workbench(run.settled(search), run.models).contents
    # Interrupted and run again, a flow run keeps the moment that it was scheduled for.
    scheduled = runtime.flow_run.scheduled_start_time or datetime.now(UTC)
    night = scheduled.date().isoformat()
    return evolve(tonight(run, search, contents, night, hours), store)
