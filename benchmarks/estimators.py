"""Error, choice and honesty of every estimator on models held out of the calibration.

    python -m benchmarks.estimators --responses FILE.parquet [--parents PARENTS.csv] [--json OUT]
        [--dimensions D]

The Parquet file has a row for each model and a column for each item (0, 1, or null where it was not
asked); its first column of strings names the models. In each of `--draws` draws a fifth of the
models, at random, is held out; the item bank, the shift, gp-IRT's constants and the widening of
parent_irt's intervals (by cross-fitted replay) come from the others alone. With `--parents`, a
CSV file with columns child, parent1, parent2, ..., the children are held out, and the estimators
know their parents' responses.

A row for each estimator, way to select items, and number of items:
    mae         mean absolute error of the accuracy on the items a model answered, in points
    mae_se      its standard error, clustered both by model and by draw (Cameron, Gelbach & Miller,
                2011), for a draw's models share its items and a model comes up in several draws
    tau         Kendall's tau-b between estimates and accuracies, mean over the draws
    regret      the best accuracy less that of the model with the highest estimate, in points, among
                up to 20 close candidates: held-out models drawn from a window of 6 points of
                accuracy around one of them, 20 times a draw; windows with less than 8 do not count
    coverage    share of the 95 % intervals that hold the accuracy
    width       their mean width, in points
    coverage_raw, widening   parent_irt without its widening, and the widening
    ability_error   mean absolute error of the estimated ability, in standard deviations of the
                    calibration models, against the ability from all of a model's responses
gp_irt has tinyBenchmarks' constants, gp_irt_c0.5 a fixed c; with one dimension mp_irt is p_irt and
gmp_irt is gp_irt_c0.5, which stand for them where there are no parents. `weighted` has a row of its
own where the selection gives weights. With several dimensions there is no shift, and no
ability_error, for their axes turn from one calibration to the next. Figures are written beside the
JSON.
"""

import argparse
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from benchmarks.figures import draw_figures
from benchmarks.matrices import Held, Matrix, read_matrix, read_parents
from benchmarks.record import report
from mergelib.estimators import (
    ESTIMATORS,
    EstimatorContext,
    endpoint_abilities,
    gp_irt_constants,
)
from mergelib.irt.ability import (
    gaussian_weights,
    maximum_likelihood,
    parent_prior_weights,
    posterior,
    posterior_mean,
)
from mergelib.irt.dimension import bank_of_dimensions
from mergelib.irt.selection import SELECTIONS, SelectionContext, select_weighted
from mergelib.irt.shift import NO_SHIFT, fit_shift
from mergelib.replay import cross_fit, replay

FloatArray = NDArray[np.float64]

ITEMS = (10, 20, 30, 50, 100)
HELD_OUT = 0.2
CLOSE, FEWEST_CLOSE, WINDOW, CHOICES = 20, 8, 0.06, 20


class Cell(NamedTuple):
    """One estimator's word on some held-out models, from one asking."""

    draw: int
    rows: NDArray[np.int64]
    truth: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray
    raw_covered: FloatArray
    widening: float
    ability_error: FloatArray


def random_groups(matrix: Matrix, rng: np.random.Generator) -> list[Held]:
    """A fifth of the models, in one group without parents."""
    count = max(1, round(HELD_OUT * len(matrix.models)))
    return [Held(np.sort(rng.permutation(len(matrix.models))[:count]), [])]


def run_draw(
    matrix: Matrix,
    groups: Sequence[Held],
    draw: int,
    sizes: Sequence[int],
    seed: int,
    dimensions: int = 1,
) -> Iterator[tuple[tuple[str, str, int], Cell]]:
    """Calibrate without the held-out models, ask them, and estimate."""
    responses = matrix.responses
    held = np.concatenate([group.rows for group in groups])
    rest = np.setdiff1d(np.arange(len(responses)), held)
    known = responses[rest]
    bank = bank_of_dimensions(known, matrix.items, dimensions)
    shift = fit_shift(known, bank) if dimensions == 1 else NO_SHIFT
    constants = gp_irt_constants(known, dimensions)
    for which, group in enumerate(groups):
        rng = np.random.default_rng([seed, draw, which])
        endpoints = [int(np.searchsorted(rest, row)) for row in group.parents]
        parents = known[endpoints]
        context = EstimatorContext(
            bank=bank,
            shift=shift,
            endpoint_abilities=endpoint_abilities(parents, bank, shift),
            gp_irt_constants=constants,
        )
        selecting = SelectionContext(
            bank=bank,
            calibration_responses=known,
            endpoint_responses=parents if endpoints else None,
        )
        folds = cross_fit(known, rng, endpoints=endpoints, context=context)
        for strategy in SELECTIONS:
            if strategy == "stratified" and not endpoints:
                continue
            for n in (n for n in sizes if n <= len(matrix.items)):
                chosen = select_weighted(strategy, n, selecting, rng)
                asked = np.full_like(responses[group.rows], np.nan)
                asked[:, chosen.items] = responses[np.ix_(group.rows, chosen.items)]
                widening = replay(known, folds, n, strategy, rng, endpoints=endpoints).widening
                own = replace(
                    context, weights=chosen.weights, clustered_anchors=strategy == "clustered"
                )
                for name, cell in _estimated(matrix, group, draw, asked, own, widening):
                    yield (name, strategy, n), cell


def _estimated(
    matrix: Matrix,
    group: Held,
    draw: int,
    asked: FloatArray,
    context: EstimatorContext,
    widening: float,
) -> Iterator[tuple[str, Cell]]:
    names = ["mean", "p_irt", "gp_irt", "gp_irt_c0.5", "parent_irt"]
    if context.weights is not None:
        names.insert(1, "weighted")
    if group.parents:
        names[-1:-1] = ["mp_irt", "gmp_irt"]
    everything = matrix.responses[group.rows]
    truth = np.nanmean(everything, axis=1)
    abilities = _ability_errors(asked, everything, context)
    for name in names:
        own = replace(context, gp_irt_constants=0.5) if name == "gp_irt_c0.5" else context
        estimator = ESTIMATORS[name.removesuffix("_c0.5")]
        raw = found = estimator(asked, own)
        factor = 1.0
        if name == "parent_irt":
            factor = widening
            found = estimator(asked, replace(own, widening=widening))
        covered = (raw.low <= truth + 1e-9) & (truth - 1e-9 <= raw.high)
        error = abilities.get(name, np.full(len(truth), np.nan))
        yield name, Cell(draw, group.rows, truth, *found, covered.astype(float), factor, error)


def _ability_errors(
    asked: FloatArray, everything: FloatArray, context: EstimatorContext
) -> dict[str, FloatArray]:
    """Errors of maximum likelihood and of parent_irt's posterior mean, each against its own."""
    bank, shift = context.bank, context.shift
    assert bank is not None
    if bank.dimensions > 1:
        return {}
    gammas = context.endpoint_abilities
    prior = gaussian_weights(0.0, shift.ability_sd)
    own = (
        prior
        if gammas is None or not gammas.size
        else parent_prior_weights(gammas, context.parent_prior)
    )
    likely = [maximum_likelihood(each, bank) for each in (asked, everything)]
    mean = posterior_mean(posterior(asked, bank, own, shift=shift))
    true = posterior_mean(posterior(everything, bank, prior, shift=shift))
    return {
        "p_irt": np.abs(likely[0] - likely[1]),
        "parent_irt": np.abs(mean - true) / shift.ability_sd,
    }


def summary(key: tuple[str, str, int], cells: Sequence[Cell], seed: int) -> dict[str, Any]:
    """The row of one estimator, selection and number of items."""
    truth, value, low, high, raw, ability = (
        np.concatenate([getattr(cell, name) for cell in cells])
        for name in ("truth", "value", "low", "high", "raw_covered", "ability_error")
    )
    rows = np.concatenate([cell.rows for cell in cells])
    draws = np.concatenate([np.full(len(cell.rows), cell.draw) for cell in cells])
    error = 100 * np.abs(value - truth)
    covered = (low <= truth + 1e-9) & (truth - 1e-9 <= high)
    taus = [_tau(cell) for cell in cells]
    return {
        "estimator": key[0],
        "selection": key[1],
        "items": key[2],
        "mae": float(error.mean()),
        "mae_se": clustered_error(error, rows, draws),
        "tau": _mean(taus),
        "regret": _mean([regret for cell in cells for regret in _regrets(cell, seed)]),
        "coverage": float(covered.mean()),
        "width": float(100 * (high - low).mean()),
        "coverage_raw": float(raw.mean()),
        "widening": float(np.mean([cell.widening for cell in cells])),
        "ability_error": _mean(ability),
    }


def clustered_error(values: FloatArray, one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Standard error of a mean with two ways of clustering.

    V = V_one + V_other - V_both (Cameron, Gelbach & Miller, 2011), each V the sum of squared sums
    within clusters, times G / (G - 1); the largest single one where the difference is not above it.
    """
    gap = (values - values.mean()) / len(values)

    def variance(labels: NDArray[Any]) -> float:
        _, place = np.unique(labels, axis=0, return_inverse=True)
        sums = np.bincount(place.ravel(), weights=gap)
        return float((sums**2).sum() * len(sums) / max(len(sums) - 1, 1))

    single = [variance(one), variance(other)]
    return float(np.sqrt(max(sum(single) - variance(np.column_stack([one, other])), *single)))


def _tau(cell: Cell) -> float:
    if len(cell.truth) < 2:
        return np.nan
    return float(kendalltau(cell.value, cell.truth).statistic)


def _regrets(cell: Cell, seed: int) -> Iterator[float]:
    """Points lost by picking the highest estimate among close candidates; ties at random."""
    rng = np.random.default_rng([seed, cell.draw])  # the same windows for every estimator
    for centre in rng.choice(cell.truth, CHOICES):
        order = rng.permutation(len(cell.truth))
        near = order[np.abs(cell.truth[order] - centre) <= WINDOW / 2][:CLOSE]
        if len(near) >= FEWEST_CLOSE:
            yield 100 * float(cell.truth[near].max() - cell.truth[near[cell.value[near].argmax()]])


def _mean(values: Any) -> float | None:
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def measure(
    matrix: Matrix,
    *,
    family: Sequence[Held] = (),
    sizes: Sequence[int] = ITEMS,
    draws: int = 20,
    seed: int = 0,
    dimensions: int = 1,
) -> list[dict[str, Any]]:
    """The rows of the table."""
    cells: dict[tuple[str, str, int], list[Cell]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "mp_irt equals p_irt")
        for draw in range(draws):
            groups = family or random_groups(matrix, np.random.default_rng([seed, draw]))
            for key, cell in run_draw(matrix, groups, draw, sizes, seed, dimensions):
                cells[key].append(cell)
    return [summary(key, found, seed) for key, found in cells.items()]


def main() -> None:
    """Read the arguments, measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--responses", type=Path, required=True, help="wide Parquet file")
    parser.add_argument("--parents", type=Path, help="CSV file: child, parent1, parent2, ...")
    parser.add_argument("--items", type=int, nargs="+", default=list(ITEMS))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dimensions", type=int, default=1, help="abilities, 1 to 5")
    parser.add_argument("--json", type=Path, help="where the rows go, with figures beside them")
    arguments = parser.parse_args()
    matrix = read_matrix(arguments.responses)
    family = read_parents(arguments.parents, matrix) if arguments.parents else []
    rows = measure(
        matrix,
        family=family,
        sizes=arguments.items,
        draws=arguments.draws,
        seed=arguments.seed,
        dimensions=arguments.dimensions,
    )
    report("estimators", rows, arguments.json)
    if arguments.json is not None:
        for path in draw_figures(rows, arguments.json):
            print(path)


if __name__ == "__main__":
    main()
