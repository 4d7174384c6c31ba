"""Pictures of the search benchmark: of functions, and of real searches."""

from collections.abc import Mapping, Sequence
from io import StringIO
from statistics import median
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "mergeflow", "font.size": 9}


def draw_functions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw the median gap against the candidates, a panel for each function and noise.

    Args:
        rows: as `benchmarks.search.measure` makes them.

    Returns:
        SVG.
    """
    panels = list(dict.fromkeys((row["function"], row["noise"]) for row in rows))
    names = sorted({row["algorithm"] for row in rows})
    across = min(len(panels), 4)
    down = -(-len(panels) // across)
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.0 * across + 2.2, 2.8 * down), layout="constrained")
        drawn: dict[str, Any] = {}
        all_axes = figure.subplots(down, across, squeeze=False).ravel()
        for axes, panel in zip(all_axes, panels, strict=False):
            for number, name in enumerate(names):
                own = [
                    row
                    for row in rows
                    if (row["function"], row["noise"], row["algorithm"]) == (*panel, name)
                ]
                if not own:
                    continue
                color = "black" if name == "random" else f"C{number % 10}"
                line = "--" if number >= 10 or name == "random" else "-"
                x, y = [row["candidates"] for row in own], [row["gap"] for row in own]
                (drawn[name],) = axes.plot(x, y, line, color=color, marker=".", linewidth=1.2)
            axes.set(xscale="log", yscale="log", title=f"{panel[0]}, noise {panel[1]:g}")
            axes.grid(alpha=0.3)
            axes.set_xticks(x, [str(count) for count in x])
            axes.minorticks_off()
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel("candidates")
        figure.supylabel("median gap")
        figure.legend(drawn.values(), drawn.keys(), loc="outside right upper", frameon=False)
        return _svg(figure)


def draw_merges(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw what each way of a real search came to on fresh items, a dot a seed and the median.

    Args:
        rows: as `benchmarks.merges.run_searches` makes them. The hypervolume is drawn where there
            is one, otherwise the winner's score beside that of the best uniform merge.

    Returns:
        SVG.
    """
    front = all(row["hypervolume"] is not None for row in rows)
    measure = "hypervolume" if front else "fresh_score"
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(str(row["algorithm"]), []).append(row[measure])
    if not front:
        groups["best uniform merge"] = [row["uniform"] for row in rows]
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 0.5 * len(groups) + 1.0), layout="constrained")
        axes = figure.subplots()
        for place, scores in enumerate(groups.values()):
            axes.plot(scores, [place] * len(scores), "o", color="C0", alpha=0.45, markersize=5)
            axes.plot(median(scores), place, "|", color="black", markersize=16, markeredgewidth=2)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlabel("hypervolume on fresh items" if front else "share right of fresh items")
        axes.grid(axis="x", alpha=0.3)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
