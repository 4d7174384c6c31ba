"""A search's benchmarks as a judge reads them: their items, and what their estimator knows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.banks import WITHOUT_BANK, bank_of, threshold_of
from mergelib.calibration import IntervalFit, calibration_matrix
from mergelib.estimators import EstimatorContext, endpoint_abilities, gp_irt_constants
from mergelib.irt.selection import SelectionContext
from mergelib.irt.shift import NO_SHIFT, Shift
from mergelib.tables import response_matrix
from mergelib.workbench import Workbench


@dataclass(frozen=True)
class Scale:
    """One benchmark's items and how its estimator reads responses to them.

    Attributes:
        choosing: what further items are chosen by.
        anchors: the items that every candidate is asked, in the bank's order.
        rungs: on which rung of a race each of them is first asked; 0 where there is no race.
        context: what the estimator may know.
        threshold: the score above which an answer counts as right; None to take scores as they are.
    """

    choosing: SelectionContext
    anchors: tuple[str, ...]
    rungs: tuple[int, ...]
    context: EstimatorContext
    threshold: float | None

    @property
    def items(self) -> tuple[str, ...]:
        """All items of the search pool, in the bank's order."""
        return self.choosing.bank.items


def scales_of(
    bench: Workbench,
    banks: pa.Table,
    responses: pa.Table,
    fits: Mapping[str, IntervalFit],
    among_siblings: Collection[str],
) -> dict[str, Scale]:
    """The scale of each benchmark.

    Args:
        bench: the search's workbench.
        banks: what `mergelib.calibration.calibrate_banks` returned, or what became of it.
        responses: the preparation's, on which the banks were first calibrated.
        fits: what `mergelib.calibration.fit_intervals` returned, or what became of it.
        among_siblings: the benchmarks whose bank rests on candidates, so that a further one's
            ability is expected among theirs and not near the endpoints'.
    """
    fitness = bench.search.fitness
    models = list(dict.fromkeys(responses["model"].to_pylist()))
    endpoints = [bench.model_digest(endpoint) for endpoint in bench.search.endpoints]
    scales = {}
    for name in bench.benchmarks:
        rows = banks.filter(pa.compute.equal(banks["benchmark"], name))
        bank = bank_of(banks, name)
        c = threshold_of(banks, name)
        fit = fits.get(name)
        shift = Shift(**fit["shift"]) if fit else NO_SHIFT
        rungs = dict(zip(bank.items, rows["rung"].to_pylist(), strict=True))
        of_endpoints = response_matrix(responses, name, endpoints, bank.items, c)
        constants = None
        if fitness.estimator == "gp_irt":
            matrix = calibration_matrix(bench, responses, name, models, bank.items, c)
            constants = gp_irt_constants(matrix, bank.dimensions)
        abilities = None
        if name not in among_siblings:
            abilities = endpoint_abilities(of_endpoints, bank, shift)
        asked = {item: rung for item, rung in rungs.items() if rung is not None}
        scales[name] = Scale(
            choosing=SelectionContext(bank, endpoint_responses=of_endpoints),
            anchors=tuple(asked),
            rungs=tuple(asked.values()),
            context=EstimatorContext(
                bank=bank,
                endpoint_abilities=abilities,
                shift=shift,
                widening=fit["widening"] if fit else 1.0,
                gp_irt_constants=constants,
                weights=_weights(rows),
                clustered_anchors=fitness.selection == "clustered",
            ),
            threshold=None if fitness.estimator in WITHOUT_BANK else c,
        )
    return scales


def _weights(bank_rows: pa.Table) -> NDArray[np.float64] | None:
    """The share weights of a benchmark's anchor items; None for equal ones."""
    weights = bank_rows["weight"]
    return None if weights.null_count else weights.to_numpy()
