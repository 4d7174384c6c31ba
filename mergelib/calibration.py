"""Calibration: item banks, anchor items, and how far the estimates' intervals can be trusted."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.banks import (
    WITHOUT_BANK,
    ability_table,
    bank_of,
    calibrated,
    joined,
    mean_abilities,
    threshold_of,
)
from mergelib.benchmarks.of_search import alike
from mergelib.errors import InputError
from mergelib.estimators import EstimatorContext
from mergelib.evaluation import Asked
from mergelib.irt.binarise import binarised, threshold
from mergelib.irt.selection import Selected, SelectionContext, nested, select_weighted
from mergelib.irt.shift import NO_SHIFT, fit_shift
from mergelib.racing import rung_sizes
from mergelib.recipes import Recipe
from mergelib.replay import DEFAULT_WIDENING, cross_fit, replay
from mergelib.search import Search
from mergelib.tables import response_matrix
from mergelib.workbench import Workbench


def calibrate_banks(bench: Workbench, responses: pa.Table) -> pa.Table:
    """Calibrate each benchmark's item bank and choose its anchor items.

    Args:
        bench: the search's workbench.
        responses: of the base model, the endpoints and the calibration merges.

    Returns:
        The items of all search pools, a row each: benchmark, item_id, discrimination, difficulty,
        their standard errors, whether the item is an anchor, its response's share weight in a
        mean, null where all anchors weigh the same, on which rung of a race it is first asked, 0
        where there is no race, null where it is no anchor, and the score above which answers to
        the benchmark count as right, null where all scores are 0 or 1. Discriminations are lists
        where a bank has several abilities.

    Raises:
        InputError: an endpoint has no scored response to a benchmark; with the reason.
    """
    search = bench.search
    random = np.random.default_rng([search.seed, 0xA2C40])  # a stream of its own
    models = list(dict.fromkeys(responses["model"].to_pylist()))
    endpoints = [bench.model_digest(endpoint) for endpoint in search.endpoints]
    tables = []
    # Two metrics of one benchmark go by the same anchors, which are answered once.
    same = alike(bench.benchmarks)
    selected: dict[str, Selected] = {}
    rungs: dict[str, list[int | None]] = {}
    for name, benchmark in bench.benchmarks.items():
        items = [item.item_id for item in benchmark.pool("search")]
        matrix = calibration_matrix(bench, responses, name, models, items)
        needed = dict(zip(search.endpoints, endpoints, strict=True))
        limit = bench.goals.constraints.get(name)
        if limit is not None and limit.below_base is not None:
            needed[str(search.base)] = bench.model_digest(str(search.base))
        for model, digest in needed.items():
            if np.isnan(matrix[models.index(digest)]).all():
                why = _commonest(responses, name)
                raise InputError(f"{name}: no answer of {model} can be scored: {why}")
        given = bench.given.banks.get(name)
        c = given.threshold if given else None
        c = _threshold(matrix) if c is None else c
        if c is not None:
            matrix = binarised(matrix, c)
        bank = given.bank if given else calibrated(matrix, items, search.fitness, search.seed)
        context = SelectionContext(
            bank=bank,
            calibration_responses=matrix,
            endpoint_responses=matrix[[models.index(digest) for digest in endpoints]],
        )
        count = len(items) if search.fitness.estimator == "full" else search.fitness.items
        chosen = selected.get(same[name])
        if chosen is None or chosen.weights is not None:
            chosen = select_weighted(search.fitness.selection, count, context, random)
        selected[name] = chosen
        anchors = set(chosen.items.tolist())
        weights = [None] * len(items) if chosen.weights is None else chosen.weights.tolist()
        table = bank.to_table()
        table = table.append_column("anchor", [[n in anchors for n in range(len(items))]])
        table = table.append_column("weight", [pa.array(weights, pa.float64())])
        rungs[name] = (
            rungs[same[name]]
            if same[name] in rungs and chosen.weights is None
            else _rungs(search, replace(context, pool=chosen.items))
        )
        table = table.append_column("rung", [pa.array(rungs[name], pa.int8())])
        table = table.append_column("threshold", [pa.array([c] * len(items), pa.float64())])
        tables.append(table.add_column(0, "benchmark", [[name] * len(items)]))
    return joined(tables)


def _rungs(search: Search, context: SelectionContext) -> list[int | None]:
    """On which rung each item of the bank is first asked; None for those outside the pool."""
    assert context.pool is not None
    random = np.random.default_rng([search.seed, 0x4ACE])  # a stream of its own
    sizes = rung_sizes(len(context.pool), search.fitness.race)
    rungs: list[int | None] = [None] * len(context.bank)
    if len(sizes) == 1:
        sets = [context.pool]
    else:
        chosen = nested(search.fitness.selection, sizes, context, random)
        sets = [of_size.items for of_size in chosen]
    for rung, items in reversed(list(enumerate(sets))):
        for item in items.tolist():
            rungs[item] = rung
    return rungs


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
    if search.fitness.estimator in WITHOUT_BANK:
        return {}
    random = np.random.default_rng([search.seed, 0x1A7E4])  # a stream of its own
    models = list(dict.fromkeys(responses["model"].to_pylist()))
    ends = [models.index(bench.model_digest(endpoint)) for endpoint in search.endpoints]
    fits = {}
    for name in bench.benchmarks:
        bank = bank_of(banks, name)
        c = threshold_of(banks, name)
        matrix = calibration_matrix(bench, responses, name, models, bank.items, c)
        shifts = search.fitness.estimator == "parent_irt" and bank.dimensions == 1
        given = bench.given.banks.get(name)
        shift = fit_shift(matrix, bank) if shifts else NO_SHIFT
        if given:
            # Nobody is left to replay on: the base and the endpoints are no calibration.
            fits[name] = IntervalFit(
                shift=asdict(given.shift if shifts and given.shift != NO_SHIFT else shift),
                widening=given.widening or DEFAULT_WIDENING,
                replayed=0,
                coverage=None,
            )
            continue
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
    """The abilities of the calibration's models: see `ability_table`.

    Args:
        bench: the search's workbench.
        banks: what `calibrate_banks` returned.
        responses: what the banks were calibrated on.
    """
    models = list(dict.fromkeys(responses["model"].to_pylist()))
    parts = []
    for name in bench.benchmarks:
        bank = bank_of(banks, name)
        c = threshold_of(banks, name)
        matrix = response_matrix(responses, name, models, bank.items, c)
        parts.append((name, models, mean_abilities(matrix, bank)))
    return ability_table(parts)


def calibration_plan(bench: Workbench) -> list[tuple[Recipe, Asked]]:
    """The random merges that help to calibrate, each with its random share of the items.

    A planned-missing design: shares overlap, by chance and by the linking items that all merges
    answer (`overlap`), and no merge answers all items. None where a file gives the responses.
    """
    search = bench.search
    calibration = search.fitness.calibration
    if bench.given.files:
        return []
    random = np.random.default_rng([search.seed, 0xCA11B])  # a stream of its own
    everything = all_asked(bench, "search")
    plan: list[tuple[Recipe, Asked]] = []
    linking: dict[str, list[int]] = {}
    same = alike(bench.benchmarks)
    for _ in range(calibration.models):
        recipe = bench.space.decode(random.random(bench.space.dimension).tolist())
        asked: dict[str, list[str]] = {}
        places: dict[str, list[int]] = {}
        for name, ids in everything.items():
            if same[name] in places:
                asked[name] = [ids[n] for n in places[same[name]]]
                continue
            count = max(1, round(calibration.share * len(ids)))
            order = random.permutation(len(ids)).tolist()
            shared = linking.setdefault(name, order[: round(calibration.overlap * count)])
            others = [n for n in order if n not in set(shared)]
            chosen = [*shared, *others[: count - len(shared)]]
            places[name] = sorted(chosen)
            asked[name] = [ids[n] for n in places[name]]
        plan.append((recipe, asked))
    return plan


def all_asked(bench: Workbench, pool: str) -> Asked:
    """Every item of one pool of each benchmark."""
    return {
        name: [item.item_id for item in benchmark.items if item.pool == pool]
        for name, benchmark in bench.benchmarks.items()
    }


def calibration_matrix(
    bench: Workbench,
    responses: pa.Table,
    name: str,
    models: Sequence[str],
    items: Sequence[str],
    c: float | None = None,
) -> NDArray[np.float64]:
    """A benchmark's responses, (models, items): the search's own models first, then the file's.

    With a threshold c they are binarised, else scores stay what they are.
    """
    scores = response_matrix(responses, name, models, items)
    file = bench.given.responses.get(name)
    if file is not None:
        scores = np.vstack([scores, file.responses])
    return scores if c is None else binarised(scores, c)


def _threshold(scores: NDArray[np.float64]) -> float | None:
    """The calibration models' threshold; None where every score is 0, 1 or missing."""
    inside = (scores > 0) & (scores < 1)
    return threshold(scores) if inside.any() else None


def _commonest(responses: pa.Table, name: str) -> str:
    """The commonest reason why answers to a benchmark were not scored."""
    of_it = pa.compute.equal(responses["benchmark"], name)
    unscored = responses.filter(pa.compute.and_(of_it, pa.compute.is_null(responses["value"])))
    return Counter(map(str, unscored["reason"].to_pylist())).most_common(1)[0][0]
