"""The judge of a search: what a few anchor items say of a candidate's accuracy on all items."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.calibration import IntervalFit, bank_of, calibration_matrix
from mergelib.estimators import (
    ESTIMATORS,
    Estimates,
    EstimatorContext,
    endpoint_abilities,
    gp_irt_constants,
)
from mergelib.irt.shift import NO_SHIFT, Shift
from mergelib.recipes import Recipe
from mergelib.search import Search
from mergelib.tables import Answered, generation_schema, response_matrix, responses_table
from mergelib.workbench import Workbench


def _weights(bank_rows: pa.Table) -> NDArray[np.float64] | None:
    """The share weights of a benchmark's anchor items; None for equal ones."""
    weights = bank_rows["weight"]
    return None if weights.null_count else weights.to_numpy()


@dataclass(frozen=True)
class _Scale:
    """One benchmark's items and how its estimator reads responses to them."""

    items: tuple[str, ...]
    anchors: tuple[str, ...]
    context: EstimatorContext


class Judge:
    """Estimates candidates from their responses to the anchor items.

    Attributes:
        anchors: the items that every candidate is asked.
    """

    def __init__(
        self,
        bench: Workbench,
        banks: pa.Table,
        responses: pa.Table,
        fits: Mapping[str, IntervalFit],
    ) -> None:
        """Set up each benchmark's estimator.

        Args:
            bench: the search's workbench.
            banks: what `calibrate_banks` returned.
            responses: what the banks were calibrated on.
            fits: what `fit_intervals` returned.
        """
        self._search: Search = bench.search
        self._estimator = ESTIMATORS[bench.search.fitness.estimator]
        models = list(dict.fromkeys(responses["model"].to_pylist()))
        endpoints = [bench.model_digest(endpoint) for endpoint in bench.search.endpoints]
        self._scales: dict[str, _Scale] = {}
        for name in bench.benchmarks:
            rows = banks.filter(pa.compute.equal(banks["benchmark"], name))
            bank = bank_of(banks, name)
            fit = fits.get(name)
            shift = Shift(**fit["shift"]) if fit else NO_SHIFT
            flags = zip(bank.items, rows["anchor"].to_pylist(), strict=True)
            constants = None
            if bench.search.fitness.estimator == "gp_irt":
                constants = gp_irt_constants(
                    calibration_matrix(bench, responses, name, models, bank.items)
                )
            context = EstimatorContext(
                bank=bank,
                endpoint_abilities=endpoint_abilities(
                    response_matrix(responses, name, endpoints, bank.items), bank, shift
                ),
                shift=shift,
                widening=fit["widening"] if fit else 1.0,
                gp_irt_constants=constants,
                weights=_weights(rows),
                clustered_anchors=bench.search.fitness.selection == "clustered",
            )
            anchors = tuple(item for item, is_anchor in flags if is_anchor)
            self._scales[name] = _Scale(bank.items, anchors, context)

    @property
    def anchors(self) -> dict[str, list[str]]:
        """The items that every candidate is asked."""
        return {name: list(scale.anchors) for name, scale in self._scales.items()}

    def unseen(self, count: int, seed: int) -> dict[str, list[str]]:
        """Items of the search pools that are no anchors, at random.

        Args:
            count: how many of each benchmark; fewer, or the anchors themselves, where it has not
                so many others.
            seed: the search's seed.
        """
        random = np.random.default_rng([seed, 0xDEC1DE])  # a stream of its own
        drawn = {}
        for name, scale in self._scales.items():
            others = sorted(set(scale.items) - set(scale.anchors), key=scale.items.index)
            kept = random.permutation(len(others))[:count]
            drawn[name] = [others[n] for n in sorted(kept)] or list(scale.anchors)
        return drawn

    def estimate(self, responses: pa.Table, models: Sequence[str]) -> dict[str, Estimates]:
        """Estimate models' accuracy on each benchmark's search pool.

        Args:
            responses: to items of the search pools; others are passed over.
            models: digests.

        Returns:
            For each benchmark the models' estimates; NaN for one without a scored response.
        """
        return {
            name: self._estimator(
                response_matrix(responses, name, models, scale.items), scale.context
            )
            for name, scale in self._scales.items()
        }

    def table(
        self,
        generation: int,
        genomes: Sequence[Sequence[float]],
        recipes: Sequence[Recipe],
        answered: Sequence[Answered],
    ) -> pa.Table:
        """A generation's table (`generation_schema`).

        `fitness` is the mean of the estimates over the benchmarks: with one benchmark what is
        optimised, with several a number to sort by.
        """
        models = [candidate.model for candidate in answered]
        estimates = self.estimate(responses_table(answered), models)
        rows = []
        for row, candidate in enumerate(answered):
            evaluation = candidate.evaluation
            values = [float(estimate.value[row]) for estimate in estimates.values()]
            scored = all(map(math.isfinite, values))
            reason = evaluation["reason"] or (None if scored else "no answer could be scored")
            entry: dict[str, Any] = {
                "generation": generation,
                "individual": candidate.model,
                "genome": list(genomes[row]),
                "recipe": recipes[row].to_yaml(),
                "fitness": sum(values) / len(values) if scored else None,
                "status": "ok" if scored else "failed",
                "reason": reason,
                "items": evaluation["items"],
                "reused": candidate.reused,
                "seconds_merge": evaluation["seconds_merge"],
                "seconds_answer": evaluation["seconds_answer"],
            }
            for name, estimate in estimates.items():
                for what, numbers in zip(("estimate", "low", "high"), estimate, strict=True):
                    entry[f"{what}_{name}"] = float(numbers[row]) if scored else None
            rows.append(entry)
        return pa.Table.from_pylist(rows, schema=generation_schema(estimates))


def fitness_matrix(table: pa.Table, benchmarks: Sequence[str]) -> NDArray[np.float64]:
    """The estimates of a generation's table, (candidates, benchmarks); NaN where failed."""
    columns = [table[f"estimate_{name}"].to_pylist() for name in benchmarks]
    return np.array(columns, dtype=np.float64).T.reshape(-1, len(benchmarks))
