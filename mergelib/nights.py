"""A search that goes on night after night, each night within a budget."""

from mergelib.runs import Run
from mergelib.search import Search


def tonight(run: Run, search: Search, night: str, hours: float) -> Search:
    """The search with the limits that it may reach tonight.

    They are written down when a night begins, so that a night that was interrupted and is begun
    again has what is left of its budget, and not a new one. Another night has all of it.

    Args:
        run: the search's run; it need not be there yet.
        search: its generations are those of one night at most; its stop rules are the whole
            search's.
        night: what tells one night from another, a date as a rule.
        hours: of merging and answering, for one night.

    Returns:
        The search, to be evolved until it stops.
    """
    nights = run.json("nights.json") if run.has("nights.json") else {}
    if night not in nights:
        done = run.finished_generations()
        so_far = run.spent(done - 1)["seconds"] / 3600 if done else 0.0
        nights[night] = {
            "generations": done + search.evolution.generations,
            "hours": so_far + hours,
        }
        run.write_json("nights.json", nights)
    limits, stop = nights[night], search.evolution.stop
    until = min(limits["hours"], stop.hours or limits["hours"])
    evolution = search.evolution.model_copy(
        update={
            "generations": limits["generations"],
            "stop": stop.model_copy(update={"hours": until}),
        }
    )
    return search.model_copy(update={"evolution": evolution})
