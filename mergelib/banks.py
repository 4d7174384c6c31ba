"""A search's item banks: their calibration with one ability or several, and their common table."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mergelib.errors import InputError
from mergelib.irt.ability import gaussian_weights, posterior, posterior_mean
from mergelib.irt.dimension import bank_of_dimensions, choose_dimensions
from mergelib.irt.items import FloatArray, ItemBank
from mergelib.irt.multidimensional import maximum_a_posteriori
from mergelib.sections.fitness import Fitness

WITHOUT_BANK = ("mean", "weighted", "full")
"""Estimators that take scores as they are, and whose intervals come from those alone."""

_KEY = "fitness.calibration.dimensions"
_LISTED = ("discrimination", "discrimination_se")
_FEWEST_MODELS = 4  # to choose the number of abilities among


def calibrated(
    responses: FloatArray, items: Sequence[str], fitness: Fitness, seed: int
) -> ItemBank:
    """A benchmark's bank with as many abilities as the search file says.

    With `auto`, as many as estimate the accuracy of models held out of the calibration best from as
    many items as a candidate answers; one where there are too few models to tell.

    Args:
        responses: (models, items) of 0, 1 or NaN.
        items: one identifier a column.
        fitness: the search file's section.
        seed: the search's.

    Raises:
        InputError: as `calibrate`, or there are too few models or items for the dimensions.
    """
    dimensions = fitness.calibration.dimensions
    if dimensions == "auto":
        averaged = fitness.estimator == "parent_irt"
        dimensions = _chosen(responses, items, fitness.items, seed, averaged)
    if dimensions == 1:
        return bank_of_dimensions(responses, items, 1)
    try:
        return bank_of_dimensions(responses, items, dimensions)
    except InputError as error:
        raise InputError(f"{_KEY}: {error}") from error


def check_dimensions(dimensions: int | str, models: int, items: int, name: str) -> None:
    """Refuse more abilities than can be calibrated, before any work.

    Args:
        dimensions: of the search file; auto is never refused.
        models: how many answer to calibrate beside the endpoints.
        items: of the search pool.
        name: of the benchmark.

    Raises:
        InputError: names the key.
    """
    if dimensions == "auto" or dimensions == 1:
        return
    if min(models, items) <= int(dimensions):
        raise InputError(
            f"{_KEY}: {dimensions} abilities from {models} models' responses to {items} items of "
            f"{name}; it takes more of both than abilities: give 1, auto, or more responses"
        )


def _chosen(responses: FloatArray, items: Sequence[str], n: int, seed: int, averaged: bool) -> int:
    known = responses[~np.isnan(responses).all(axis=1)]
    if len(known) < _FEWEST_MODELS or not ((~np.isnan(known)).sum(axis=1) > n).any():
        return 1
    random = np.random.default_rng([seed, 0xD1])  # a stream of its own
    return choose_dimensions(known, items, n, random, averaged=averaged).dimensions


def bank_of(banks: pa.Table, name: str) -> ItemBank:
    """One benchmark's bank in a run's bank.parquet."""
    return ItemBank.from_table(banks.filter(pa.compute.equal(banks["benchmark"], name)))


def threshold_of(banks: pa.Table, name: str) -> float | None:
    """The score above which a benchmark's answers count as right; None where they are 0 or 1."""
    if "threshold" not in banks.column_names:
        return None  # of a run begun before there was such a column
    rows = banks.filter(pa.compute.equal(banks["benchmark"], name))
    found: float | None = rows["threshold"][0].as_py()
    return found


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """The benchmarks' banks as one table: lists in all of it where one has several abilities."""
    listed = any(_holds_lists(table) for table in tables)
    return pa.concat_tables([_as_lists(table) for table in tables] if listed else list(tables))


def _holds_lists(table: pa.Table) -> bool:
    return not pa.types.is_floating(table.schema.field(_LISTED[0]).type)


def _as_lists(table: pa.Table) -> pa.Table:
    for name in _LISTED:
        lists = [[v] if isinstance(v, float) else v for v in table[name].to_pylist()]
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, [pa.array(lists, pa.list_(pa.float64()))])
    return table


def mean_abilities(responses: FloatArray, bank: ItemBank) -> FloatArray:
    """Models' abilities under the calibration's prior: posterior means (M,), or modes (M, D).

    Args:
        responses: (M, I) of 0, 1 or NaN.
        bank: the items.
    """
    if bank.dimensions > 1:
        return maximum_a_posteriori(responses, bank).mode
    return posterior_mean(posterior(responses, bank, gaussian_weights(0.0, 1.0)))


def ability_table(parts: Sequence[tuple[str, Sequence[str], FloatArray]]) -> pa.Table:
    """Columns benchmark, model, ability: a number, or lists where a bank has several abilities.

    Args:
        parts: of each benchmark its name, the models, and their abilities (M,) or (M, D).
    """
    listed = any(values.ndim > 1 for _, _, values in parts)
    rows = [
        {"benchmark": name, "model": model, "ability": ability}
        for name, models, values in parts
        for model, ability in zip(
            models,
            (values.reshape(len(values), -1) if listed else values).tolist(),
            strict=True,
        )
    ]
    return pa.Table.from_pylist(rows)
