"""The report's pictures, as SVG."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mergelib.racing import comparable
from mergelib.search import Search

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mergeflow",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}
_CANDIDATE, _BEST, _WINNER, _PARENT, _UNIFORM = (
    "#9db4d3",
    "#2b5c9e",
    "#c8442b",
    "#666666",
    "#b08a2e",
)


def convergence(
    search: Search, generations: Sequence[pa.Table], finalists: Sequence[Mapping[str, Any]]
) -> str:
    """Candidates' estimates over the search, and what came out on fresh items.

    Args:
        search: the search.
        generations: the tables of all generations, one objective.
        finalists: rows of finalists.parquet.

    Returns:
        SVG.
    """
    columns = pa.concat_tables(generations)
    fitness = 100 * np.array(columns["fitness"].to_pylist(), dtype=np.float64)
    fitness[fitness < 0] = np.nan  # breaks a constraint: that is no score
    count = np.arange(1, len(fitness) + 1)
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.plot(count, fitness, ".", color=_CANDIDATE, label="candidate, estimate")
        able = comparable(search, columns)
        best = np.fmax.accumulate(np.where(able, fitness, np.nan))
        whose = "best estimate so far"
        if (~np.isnan(fitness) & ~able).any():
            whose = "best of whole races"
        axes.step(count, best, where="post", color=_BEST, label=whose)
        for row in finalists:
            if row["role"] in ("finalist", "winner"):
                _with_interval(axes, 1.04 * len(fitness), row)
        axes.set_xlim(0, 1.08 * len(fitness))
        axes.set_ylim(0, None)
        _levels(axes, [r for r in finalists if r["role"] in ("base", "endpoint", "uniform")])
        axes.set_xlabel("candidates answered")
        axes.set_ylabel("correct, %")
        _legend(axes)
    return _svg(figure)


def _levels(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Dashed lines at models' scores on the fresh items, with their names at the right."""
    top = axes.get_ylim()[1]
    last = -np.inf
    for row in sorted(rows, key=lambda row: float(row["score"])):
        score = 100 * row["score"]
        color = _UNIFORM if row["role"] == "uniform" else _PARENT
        axes.axhline(score, color=color, linestyle="--", linewidth=1)
        name = "best uniform" if row["role"] == "uniform" else row["name"]
        last = max(score, last + 0.055 * top)  # names keep a line's distance
        axes.annotate(
            f" {name}",
            (1.0, last),
            xycoords=("axes fraction", "data"),
            va="center",
            color=color,
            fontsize=9,
        )


def _legend(axes: Axes) -> None:
    """A legend in one row above the picture, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9)


def _with_interval(axes: Axes, x: float, row: Mapping[str, Any]) -> None:
    won = row["role"] == "winner"
    label = "winner, fresh items" if won else None
    errors = [[100 * (row["score"] - row["low"])], [100 * (row["high"] - row["score"])]]
    style: dict[str, Any] = (
        {"color": _WINNER, "zorder": 3} if won else {"color": _CANDIDATE, "markersize": 4}
    )
    axes.errorbar([x], [100 * row["score"]], yerr=errors, fmt="o", label=label, **style)


def trade_offs(
    generations: Sequence[pa.Table], finalists: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> str:
    """The first two objectives against each other: estimates, and the front on fresh items.

    Args:
        generations: the tables of all generations.
        finalists: rows of finalists.parquet.
        names: the benchmarks.

    Returns:
        SVG.
    """
    columns = pa.concat_tables(generations)
    estimates = [100 * np.array(columns[f"estimate_{name}"].to_pylist(), float) for name in names]
    scores: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in finalists:
        scores.setdefault(row["model"], {})[row["benchmark"]] = row
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(*estimates[:2], ".", color=_CANDIDATE, label="candidate, estimate")
        front = []
        for model in scores.values():
            first, second = (model[name] for name in names[:2])
            point = (100 * first["score"], 100 * second["score"])
            if first["role"] == "winner":
                front.append(point)
                continue
            color = _UNIFORM if first["role"] == "uniform" else _PARENT
            if first["role"] != "finalist":
                axes.plot(*point, "s", color=color, markersize=5)
                label = "uniform merge" if first["role"] == "uniform" else first["name"]
                axes.annotate(label, point, xytext=(5, 3), textcoords="offset points", color=color)
        if front:
            line = zip(*sorted(front), strict=True)
            axes.plot(*line, "o-", color=_WINNER, label="front, fresh items")
        axes.set_xlabel(f"{names[0]}, % correct")
        axes.set_ylabel(f"{names[1]}, % correct")
        axes.set_xlim(0, None)
        axes.set_ylim(0, None)
        _legend(axes)
    return _svg(figure)


def growth(hypervolumes: Sequence[float]) -> str:
    """How much of the space of scores the front dominates, by estimates, after each generation.

    Args:
        hypervolumes: shares in [0, 1], a generation each.

    Returns:
        SVG.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 2.4), layout="constrained")
        axes = figure.subplots()
        axes.plot(range(1, len(hypervolumes) + 1), 100 * np.array(hypervolumes), color=_BEST)
        axes.set_xlabel("generations")
        axes.set_ylabel("dominated, %")
        axes.set_ylim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure)


def _svg(figure: Figure) -> str:
    text = StringIO()
    with rc_context(_STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
