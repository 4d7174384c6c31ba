"""Calibration: item banks, anchor items, and how far the estimates' intervals can be trusted."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.errors import InputError
from mergelib.estimators import EstimatorContext
from mergelib.irt.ability import gaussian_weights, posterior, posterior_mean
from mergelib.irt.bank import ItemBank, calibrate
from mergelib.irt.selection import SelectionContext, select_weighted
from mergelib.irt.shift import NO_SHIFT, fit_shift
from mergelib.recipes import Recipe
from mergelib.replay import cross_fit, replay
from mergelib.tables import response_matrix
from mergelib.workbench import Asked, Workbench

_WITHOUT_BANK = ("mean", "weighted", "full")
"""Estimators whose intervals come from the responses alone."""

_BANK_KEYS = ("benchmark", "anchor", "weight")


def calibrate_banks(bench: Workbench, responses: pa.Table) -> pa.Table:
    """Calibrate each benchmark's item bank and choose its anchor items.

    Args:
        bench: the search's workbench.
        responses: of the base model, the endpoints and the calibration merges.

    Returns:
        The items of all search pools, a row each: benchmark, item_id, discrimination, difficulty,
        their standard errors, whether the item is an anchor, and its response's share weight in
        a mean, null where all anchors weigh the same.

    Raises:
        InputError: an endpoint has no scored response to a benchmark; with the reason.
    """
    search = bench.search
    random = np.random.default_rng([search.seed, 0xA2C40])  # a stream of its own
    models = list(dict.fromkeys(responses["model"].to_pylist()))
    endpoints = [bench.model_digest(endpoint) for endpoint in search.endpoints]
    tables = []
    for name, benchmark in bench.benchmarks.items():
        items = [item.item_id for item in benchmark.pool("search")]
        matrix = calibration_matrix(bench, responses, name, models, items)
        for endpoint, digest in zip(search.endpoints, endpoints, strict=True):
            if np.isnan(matrix[models.index(digest)]).all():
                why = _commonest(responses["reason"].to_pylist())
                raise InputError(f"{name}: no answer of {endpoint} can be scored: {why}")
        bank = calibrate(matrix, items).bank
        context = SelectionContext(
            bank=bank,
            calibration_responses=matrix,
            endpoint_responses=matrix[[models.index(digest) for digest in endpoints]],
        )
        count = len(items) if search.fitness.estimator == "full" else search.fitness.items
        chosen = select_weighted(search.fitness.selection, count, context, random)
        anchors = set(chosen.items.tolist())
        weights = [None] * len(items) if chosen.weights is None else chosen.weights.tolist()
        table = bank.to_table()
        table = table.append_column("anchor", [[n in anchors for n in range(len(items))]])
        table = table.append_column("weight", [pa.array(weights, pa.float64())])
        tables.append(table.add_column(0, "benchmark", [[name] * len(items)]))
    return pa.concat_tables(tables)


class IntervalFit(TypedDict):
    """What makes one benchmark's intervals true: plain JSON.

    Attributes:
        shift: of `mergelib.irt.shift.Shift`, by its fields.
        widening: factor on the intervals' doubt about ability.
        replayed: how many calibration models were asked as candidates are, each by a bank that did
            not know it.
        coverage: share of those whose accuracy the intervals held before widening; None for none.
    """

    shift: dict[str, float]
    widening: float
    replayed: int
    coverage: float | None


def fit_intervals(bench: Workbench, banks: pa.Table, responses: pa.Table) -> dict[str, IntervalFit]:
    """Find how far the item response model's intervals can be trusted, for each benchmark.

    Args:
        bench: the search's workbench.
        banks: what `calibrate_banks` returned.
        responses: what the banks were calibrated on.

    Returns:
        For each benchmark; empty where the estimator knows no such intervals.
    """
    search = bench.search
    if search.fitness.estimator in _WITHOUT_BANK:
        return {}
    random = np.random.default_rng([search.seed, 0x1A7E4])  # a stream of its own
    models = list(dict.fromkeys(responses["model"].to_pylist()))
    ends = [models.index(bench.model_digest(endpoint)) for endpoint in search.endpoints]
    fits = {}
    for name in bench.benchmarks:
        bank = bank_of(banks, name)
        matrix = calibration_matrix(bench, responses, name, models, bank.items)
        shift = fit_shift(matrix, bank) if search.fitness.estimator == "parent_irt" else NO_SHIFT
        context = EstimatorContext(bank=bank, shift=shift)
        folds = cross_fit(matrix, random, endpoints=ends, context=context)
        selection = search.fitness.selection
        asked = replay(matrix, folds, search.fitness.items, selection, random, endpoints=ends)
        fits[name] = IntervalFit(
            shift=asdict(shift),
            widening=asked.widening,
            replayed=asked.models,
            coverage=None if math.isnan(asked.coverage) else asked.coverage,
        )
    return fits


def abilities(bench: Workbench, banks: pa.Table, responses: pa.Table) -> pa.Table:
    """The abilities of the calibration's models: columns benchmark, model, ability.

    Args:
        bench: the search's workbench.
        banks: what `calibrate_banks` returned.
        responses: what the banks were calibrated on.
    """
    models = list(dict.fromkeys(responses["model"].to_pylist()))
    prior = gaussian_weights(0.0, 1.0)
    rows = []
    for name in bench.benchmarks:
        bank = bank_of(banks, name)
        matrix = response_matrix(responses, name, models, bank.items)
        means = posterior_mean(posterior(matrix, bank, prior)).tolist()
        rows += [
            {"benchmark": name, "model": m, "ability": a}
            for m, a in zip(models, means, strict=True)
        ]
    return pa.Table.from_pylist(rows)


def calibration_plan(bench: Workbench) -> list[tuple[Recipe, Asked]]:
    """The random merges that help to calibrate, each with its random share of the items.

    A planned-missing design: shares overlap, by chance and by the linking items that all merges
    answer (`overlap`), and no merge answers all items. None where a file gives the responses.
    """
    search = bench.search
    calibration = search.fitness.calibration
    if bench.calibration:
        return []
    random = np.random.default_rng([search.seed, 0xCA11B])  # a stream of its own
    everything = all_asked(bench, "search")
    plan: list[tuple[Recipe, Asked]] = []
    linking: dict[str, list[int]] = {}
    for _ in range(calibration.models):
        recipe = bench.space.decode(random.random(bench.space.dimension).tolist())
        asked: dict[str, list[str]] = {}
        for name, ids in everything.items():
            count = max(1, round(calibration.share * len(ids)))
            order = random.permutation(len(ids)).tolist()
            shared = linking.setdefault(name, order[: round(calibration.overlap * count)])
            others = [n for n in order if n not in set(shared)]
            chosen = [*shared, *others[: count - len(shared)]]
            asked[name] = [ids[n] for n in sorted(chosen)]
        plan.append((recipe, asked))
    return plan


def all_asked(bench: Workbench, pool: str) -> Asked:
    """Every item of one pool of each benchmark."""
    return {
        name: [item.item_id for item in benchmark.items if item.pool == pool]
        for name, benchmark in bench.benchmarks.items()
    }


def bank_of(banks: pa.Table, name: str) -> ItemBank:
    """One benchmark's bank in what `calibrate_banks` returned."""
    rows = banks.filter(pa.compute.equal(banks["benchmark"], name))
    return ItemBank.from_table(rows.drop_columns(list(_BANK_KEYS)))


def calibration_matrix(
    bench: Workbench, responses: pa.Table, name: str, models: Sequence[str], items: Sequence[str]
) -> NDArray[np.float64]:
    """A benchmark's responses, (models, items): the search's own models first, then the file's."""
    own = response_matrix(responses, name, models, items)
    file = bench.calibration.get(name)
    return own if file is None else np.vstack([own, file.responses])


def _commonest(reasons: Sequence[str | None]) -> str:
    """The commonest reason why answers were not scored."""
    return Counter(reason for reason in reasons if reason is not None).most_common(1)[0][0]
