"""When a search has had enough: its generations, or a stop rule that is met before."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mergelib.evolution.front import hypervolume, non_dominated
from mergelib.files import FileState, file_state
from mergelib.fitness import Judge
from mergelib.judging import judge_of
from mergelib.ledger import is_reported
from mergelib.racing import comparable
from mergelib.runs import Run


def is_finished(run: Run) -> bool:
    """Whether nothing is left to do: no generation to ask for, and all of them are reported."""
    return is_reported(run) and reason_to_stop(run) is not None


def reason_to_stop(run: Run, generation: int | None = None) -> str | None:
    """Why a generation is not asked for; None if it is.

    It follows from what was written with the finished generations, so that a resumed run stops
    where an uninterrupted one does; a limit that is raised later lets it go on. A search that asks
    `evolution.ahead` judges each generation by those that it is asked from: what has been asked by
    the time that a rule is met is still answered.

    Args:
        run: a prepared run; all its generations so far are finished.
        generation: which one; by default the first that is not finished.
    """
    evolution, done = run.search.evolution, run.finished_generations()
    number = done if generation is None else generation
    stop, known = evolution.stop, number - evolution.ahead
    if number >= evolution.generations:
        return f"all {evolution.generations} generations are finished"
    if known <= 0:
        return None
    if stop.plateau is not None or stop.target is not None:
        best = progress_of(run, judge_of(run, 0))[:known]
        if stop.target is not None and best[-1] >= stop.target:
            return f"the target was reached: {100 * best[-1]:.1f} % (evolution.stop.target)"
        flat = known - 1 - int(np.argmax(best >= best[-1] - 1e-12))
        if stop.plateau is not None and flat >= stop.plateau:
            return f"no better candidate in {flat} generations (evolution.stop.plateau)"
    cost = run.spent(known - 1)
    hours = cost["seconds"] / 3600
    if stop.hours is not None and hours >= stop.hours:
        return f"merging and answering took {hours:.2f} hours (evolution.stop.hours)"
    if stop.answers is not None and cost["items"] >= stop.answers:
        return f"{cost['items']:,} items were answered (evolution.stop.answers)"
    return None


def progress_of(run: Run, judge: Judge) -> NDArray[np.float64]:
    """How good the best candidates so far were after each generation, by their estimates.

    Returns:
        (generations,), never falling: the highest fitness; of a front the share of the space of
        scores that it dominates (the hypervolume with reference 0). Of a race `comparable`
        candidates count.
    """
    front = judge.goals.front
    key = (run.folder, file_state(run.path("state/0000.json")))
    before = _so_far.get(key) or _SoFar((), np.empty((0, judge.goals.count if front else 1)))
    best, told = list(before.best), before.told
    for number in range(len(best), run.finished_generations()):
        table = run.generation(number)
        told = np.vstack([told, judge.told(table)[comparable(run.search, table)]])
        told = told[non_dominated(told)]
        best.append(hypervolume(told, [0.0] * told.shape[1]) if front else float(told.max()))
    _so_far.clear()
    _so_far[key] = _SoFar(tuple(best), told)
    return np.array(best)


class _SoFar(NamedTuple):
    """What `progress_of` knows of the generations that it has read.

    Attributes:
        best: what it returned.
        told: (n, k), the fitness of the best candidates, none of which is better than another.
    """

    best: tuple[float, ...]
    told: NDArray[np.float64]


_so_far: dict[tuple[Path, FileState], _SoFar] = {}
"""Of the last run that was asked for: finished generations stay what they are."""
