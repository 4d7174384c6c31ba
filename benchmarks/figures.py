"""Figures of the estimators' benchmark, as PNG beside its JSON."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito's colours, which colour-blind readers can tell apart; a marker each for grey prints.
STYLES = {
    "mean": ("#7f7f7f", "o"),
    "weighted": ("#E69F00", "P"),
    "p_irt": ("#56B4E9", "s"),
    "gp_irt": ("#009E73", "^"),
    "gp_irt_c0.5": ("#CC79A7", "v"),
    "mp_irt": ("#F0E442", "D"),
    "gmp_irt": ("#0072B2", "X"),
    "parent_irt": ("#D55E00", "*"),
}
NOMINAL = 0.95
LOWEST = {
    "coverage": 0.75
}  # what is worse leaves the panel, so that what is near can be told apart


def draw_figures(rows: Sequence[dict[str, Any]], beside: Path) -> list[Path]:
    """Draw error, ability recovery and coverage against the number of items.

    Args:
        rows: as `benchmarks.estimators` makes them.
        beside: the JSON file; the figures are named after it.

    Returns:
        The files written.
    """
    return [
        _panels(rows, beside, "mae", "mean absolute error (points)", _error_bars),
        _panels(rows, beside, "ability_error", "error of ability (standard deviations)", _line),
        _panels(rows, beside, "coverage", "coverage of 95 % intervals (shown from 75 %)", _line),
    ]


Draw = Callable[[Axes, list[dict[str, Any]], str, dict[str, Any]], None]


def _panels(
    rows: Sequence[dict[str, Any]], beside: Path, quantity: str, label: str, draw: Draw
) -> Path:
    """A panel for each selection, a line for each estimator."""
    selections = list(dict.fromkeys(row["selection"] for row in rows))
    figure = Figure(figsize=(3.2 * len(selections) + 1.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(selections), sharey=True, squeeze=False)[0]
    drawn: dict[str, Any] = {}
    for axes, selection in zip(panels, selections, strict=True):
        sizes = sorted({row["items"] for row in rows})
        for name in STYLES:
            own = [
                row
                for row in rows
                if (row["estimator"], row["selection"]) == (name, selection)
                and row[quantity] is not None
            ]
            if own:
                color, marker = STYLES[name]
                style = {"color": color, "marker": marker, "markersize": 5, "linewidth": 1.4}
                draw(axes, own, quantity, style | {"label": name})
        if quantity == "coverage":
            axes.axhline(NOMINAL, color="black", linewidth=0.8, linestyle="--")
            axes.axhspan(NOMINAL - 0.02, NOMINAL + 0.02, color="black", alpha=0.06, linewidth=0)
        axes.set(xscale="log", title=selection, xlabel="items asked")
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            drawn.setdefault(name, handle)
    panels[0].set_ylim(bottom=LOWEST.get(quantity, 0.0))
    panels[0].set_ylabel(label)
    figure.legend(drawn.values(), drawn.keys(), loc="outside right upper", frameon=False)
    path = beside.with_name(f"{beside.stem}_{quantity}.png")
    figure.savefig(path, dpi=150)
    return path


def _line(axes: Axes, rows: list[dict[str, Any]], quantity: str, style: dict[str, Any]) -> None:
    axes.plot([row["items"] for row in rows], [row[quantity] for row in rows], **style)


def _error_bars(
    axes: Axes, rows: list[dict[str, Any]], quantity: str, style: dict[str, Any]
) -> None:
    """With bars of two standard errors."""
    axes.errorbar(
        [row["items"] for row in rows],
        [row[quantity] for row in rows],
        yerr=[2 * row[f"{quantity}_se"] for row in rows],
        capsize=2,
        elinewidth=0.7,
        **style,
    )
