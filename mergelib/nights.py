"""A search that goes on night after night, each night within a budget."""

from collections.abc import Mapping

from mergelib.runs import Run
from mergelib.search import Search


def tonight(
    run: Run, search: Search, contents: Mapping[str, str], night: str, hours: float
) -> Search:
    """The search with the limits that it may reach tonight.

    They are written down when a night begins, so that a night that was interrupted and is begun
    again has what is left of its budget, and not a new one. Another night has all of it.

    Args:
        run: the search's run; it need not be there yet.
        search: its generations are those of one night at most; its stop rules are the whole
            search's.
        contents: what decides its answers beside the search file; see `Run.prepare`.
        night: what tells one night from another, a date as a rule.
        hours: of merging and answering, for one night.

    Returns:
        The search, to be evolved until it stops.

    Raises:
        InputError: the run cannot go on with it; nothing has been written then.
    """
    nights = run.json("nights.json") if run.has("nights.json") else {}
    begun = night in nights
    if not begun:
        done = run.finished_generations()
        so_far = run.spent(done - 1)["seconds"] / 3600 if done else 0.0
        nights[night] = {
            "generations": done + search.evolution.generations,
            "hours": so_far + hours,
        }
    limited = _within(search, **nights[night])
    # The search as it is given names one night's generations; the run may have more.
    if run.has("search.yaml"):
        run.check_same(limited, dict(contents))
    if not begun:
        run.write_json("nights.json", nights)
    return limited


def _within(search: Search, generations: int, hours: float) -> Search:
    """The search with limits that are a night's and its own."""
    stop = search.evolution.stop
    until = min(hours, stop.hours or hours)
    evolution = search.evolution.model_copy(
        update={
            "generations": generations,
            "stop": stop.model_copy(update={"hours": until}),
        }
    )
    return search.model_copy(update={"evolution": evolution})
