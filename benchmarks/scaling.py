"""How long a search takes on 1 to 256 workers: a simulation that replays measured candidate times.

    python -m benchmarks.scaling RUN [RUN ...] [--population 12 64 256] [--generations 20]
        [--seconds S] [--spread S] [--each 0.02] [--between 0.5] [--json FILE]

Candidates take as long as those of the run folders did (`seconds_merge` + `seconds_answer`), drawn
from a lognormal distribution fitted to them; `--seconds` scales its mean to another model's, and
`--spread` says how much they vary, as the standard deviation of the logarithm. The process that
hands them out spends `--each` seconds on every candidate, one after the other, and `--between` on
every generation; `benchmarks.orchestration` measures both.

- `ahead 0`: a generation is asked when the one before has been told, and waits for its slowest.
- `ahead 1`, `ahead 3`: `evolution.ahead`. It is asked when all but so many of those before it have
  been told; workers that are free go on with it.
- `free`: steady state as it is mostly done. Who is free gets the next candidate; what is asked then
  depends on who was faster, so that no run can be repeated. mergeflow has no such mode.

`speedup` is to one worker without any of this, `busy` the share of the workers' time in which
they merge and answer. Means over ten draws. With `--json` a picture is drawn beside the file.
"""

import argparse
import heapq
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.record import report
from mergelib.runs import Run

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DRAWS = 10

Seconds = NDArray[np.float64]


def measured(runs: Sequence[Path]) -> Seconds:
    """The seconds that each candidate of some runs took; those found in the store are left out."""
    found: list[float] = []
    for run in map(Run, runs):
        for number in range(run.finished_generations()):
            for row in run.generation(number).to_pylist():
                if not row["reused"] and row["status"] == "ok":
                    found.append(row["seconds_merge"] + row["seconds_answer"])
    return np.array(found)


def ahead(times: Seconds, workers: int, each: float, between: float, generations: int) -> float:
    """Seconds of a search that asks so many generations ahead; times: (generations, n)."""
    idle = [0.0] * workers
    handed = 0.0
    told = [0.0] * (generations + 1)
    for own in times:
        ready = told[-generations - 1]
        for seconds in own:
            handed = max(handed, ready, heapq.heappop(idle)) + each
            heapq.heappush(idle, handed + seconds)
        told.append(max(told[-1], *idle) + between)
    return told[-1]


def free(times: Seconds, workers: int, each: float, between: float) -> float:
    """Seconds of a search in which whoever is free gets the next candidate."""
    # What is done after a generation is done as often, but no worker waits for it.
    return ahead(times.reshape(1, -1), workers, each + between / times.shape[1], 0.0, 0)


MODES: dict[str, Callable[[Seconds, int, float, float], float]] = {
    **{f"ahead {count}": partial(ahead, generations=count) for count in (0, 1, 3)},
    "free": free,
}


def simulate(
    logs: Seconds, populations: Sequence[int], generations: int, each: float, between: float
) -> Iterator[dict[str, Any]]:
    """Yield a record for each population, mode and number of workers; logs: of the times."""
    for population in populations:
        random = np.random.default_rng(population)
        shape = (DRAWS, generations, population)
        draws = np.exp(random.normal(logs.mean(), logs.std(), shape))
        for mode, seconds_of in MODES.items():
            for workers in WORKERS:
                seconds = float(np.mean([seconds_of(own, workers, each, between) for own in draws]))
                work = float(draws.sum(axis=(1, 2)).mean())
                yield {
                    "mode": mode,
                    "population": population,
                    "workers": workers,
                    "seconds": seconds,
                    "speedup": work / seconds,
                    "busy": work / seconds / workers,
                }


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """Draw the speed-up against the workers, a panel for each population; returns SVG."""
    populations = list(dict.fromkeys(row["population"] for row in rows))
    style = {"svg.fonttype": "none", "svg.hashsalt": "mergeflow", "font.size": 9}
    with rc_context(style):
        figure = Figure(figsize=(3.0 * len(populations) + 1.2, 2.8), layout="constrained")
        panels = figure.subplots(1, len(populations), squeeze=False, sharey=True).ravel()
        for axes, population in zip(panels, populations, strict=True):
            axes.plot(WORKERS, WORKERS, ":", color="gray", label="one for each worker")
            for mode in MODES:
                own = [r for r in rows if (r["mode"], r["population"]) == (mode, population)]
                axes.plot(WORKERS, [row["speedup"] for row in own], marker=".", label=mode)
            axes.set(xscale="log", yscale="log", title=f"population {population}")
            axes.set_xticks(WORKERS, [str(count) for count in WORKERS])
            axes.set_yticks(WORKERS, [str(count) for count in WORKERS])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        figure.supxlabel("workers")
        figure.supylabel("speed-up")
        panels[-1].legend(frameon=False, fontsize=8)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def main() -> None:
    """Simulate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--population", nargs="+", type=int, default=[12, 64, 256])
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--seconds", type=float, help="a candidate's, on average")
    parser.add_argument("--spread", type=float, help="standard deviation of their logarithm")
    parser.add_argument("--each", type=float, default=0.02)
    parser.add_argument("--between", type=float, default=0.5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    times = measured(given.runs)
    logs = np.log(times)
    print(
        f"{len(times)} candidates of {times.mean():.3g} s on average, "
        f"standard deviation of the logarithm {logs.std():.2f}"
    )
    if given.seconds is not None:
        logs += np.log(given.seconds / times.mean())
    if given.spread is not None:
        logs = logs.mean() + (logs - logs.mean()) * given.spread / logs.std()
    rows = list(simulate(logs, given.population, given.generations, given.each, given.between))
    report("scaling", rows, given.json)
    if given.json is not None:
        given.json.with_suffix(".svg").write_text(draw(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
