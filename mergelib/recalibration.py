"""The item bank calibrated again after each generation, on what the candidates have answered.

A search that calibrates itself begins with a few random merges' responses, and its candidates give
many more: to other items each generation, and as models alike the ones that are to be told apart,
which get most items right or wrong together. Responses of all of them are calibrated at once
(concurrent calibration, Wingersky and Lord 1984, "An investigation of methods for reducing sampling
error in certain IRT procedures"), and a candidate's ability is drawn towards that of the others and
no longer towards the endpoints'. Not so where all candidates are asked the same items, by which
they are compared anyway; where a file's many responses, or its bank, know the items better; for
algorithms that cannot be told again; and for the published estimators, which stand as published.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import NamedTuple

import pyarrow as pa

from mergelib.banks import bank_of, joined, threshold_of
from mergelib.calibration import IntervalFit, calibration_matrix
from mergelib.irt.rasch import ABILITY_SD, calibrate_rasch
from mergelib.irt.shift import Shift
from mergelib.search import Search
from mergelib.workbench import Workbench

MODELS = 1000
"""The newest candidates that a bank is calibrated on, about, beside the preparation's models."""


class Recalibrated(NamedTuple):
    """What another calibration says of a search's benchmarks.

    Attributes:
        banks: as `mergelib.calibration.calibrate_banks` returns them: anchors, weights, rungs and
            thresholds are what they were.
        fits: as `mergelib.calibration.fit_intervals` returns them, with other shifts.
        names: the benchmarks that were calibrated again.
    """

    banks: pa.Table
    fits: dict[str, IntervalFit]
    names: frozenset[str]


def recalibrates(search: Search) -> bool:
    """Whether a search's banks are calibrated again."""
    return search.learns_items and search.renewal > 0


def again(bench: Workbench, banks: pa.Table) -> frozenset[str]:
    """The benchmarks whose banks are: those of one ability."""
    if not recalibrates(bench.search):
        return frozenset()
    return frozenset(n for n in bench.benchmarks if bank_of(banks, n).dimensions == 1)


def reach(search: Search, generations: int) -> range:
    """The generations, of the first so many, whose candidates banks are calibrated on."""
    newest = math.ceil(MODELS / search.evolution.population)
    return range(max(0, generations - newest), generations)


def recalibrated(
    bench: Workbench,
    banks: pa.Table,
    fits: Mapping[str, IntervalFit],
    prepared: pa.Table,
    answered: pa.Table,
) -> Recalibrated:
    """Calibrate the banks again, of benchmarks for which that is done.

    Args:
        bench: the search's workbench.
        banks: what `mergelib.calibration.calibrate_banks` returned.
        fits: what `mergelib.calibration.fit_intervals` returned.
        prepared: the responses that the banks were calibrated on.
        answered: the candidates' responses.
    """
    responses = pa.concat_tables([prepared, answered])
    models = list(dict.fromkeys(responses["model"].to_pylist()))
    tables, shifted, names = [], dict(fits), again(bench, banks)
    for name in bench.benchmarks:
        rows = banks.filter(pa.compute.equal(banks["benchmark"], name))
        if name in names:
            items, c = rows["item_id"].to_pylist(), threshold_of(banks, name)
            matrix = calibration_matrix(bench, responses, name, models, items, c)
            bank = calibrate_rasch(matrix, items)
            parameters = bank.to_table().drop_columns("item_id")
            for column in parameters.column_names:
                place = rows.schema.get_field_index(column)
                rows = rows.set_column(place, column, parameters[column])
            wide = Shift(ability_sd=ABILITY_SD / float(bank.discrimination[0]))
            shifted[name] = IntervalFit(**{**fits[name], "shift": asdict(wide)})
        tables.append(rows)
    return Recalibrated(joined(tables), shifted, names)
