"""The judge of a search: what a few anchor items say of a candidate's accuracy on all items."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.benchmarks.of_search import alike
from mergelib.calibration import IntervalFit
from mergelib.estimators import ESTIMATORS, Estimates
from mergelib.goals import estimates_of
from mergelib.racing import behind
from mergelib.recipes import Recipe
from mergelib.renewal import period_of, renewed
from mergelib.scales import scales_of
from mergelib.search import Search
from mergelib.tables import Answered, generation_schema, response_matrix, responses_table
from mergelib.workbench import Workbench

_DIGITS = 9
"""Of a fitness, after the point."""


class Judge:
    """Estimates candidates from their responses to the anchor items.

    Attributes:
        anchors: the items that every candidate is asked, or in a race those that get to the end.
        goals: what is maximised.
        asked_most: how many items a candidate is asked that gets to the end of a race; what several
            benchmarks ask alike counts once, as it is answered once.
    """

    def __init__(
        self,
        search: Search,
        bench: Workbench,
        banks: pa.Table,
        responses: pa.Table,
        fits: Mapping[str, IntervalFit],
        among_siblings: Collection[str] = (),
    ) -> None:
        """Set up each benchmark's estimator.

        Args:
            search: the search; the workbench does not know how it ends.
            bench: the search's workbench.
            banks: what `calibrate_banks` returned.
            responses: the preparation's, on which the banks were first calibrated.
            fits: what `fit_intervals` returned.
            among_siblings: the benchmarks whose bank rests on candidates, so that a further one's
                ability is expected among theirs and not near the endpoints'.
        """
        self._search = search
        self.goals = bench.goals
        self._same = alike(bench.benchmarks)
        self._estimator = ESTIMATORS[bench.search.fitness.estimator]
        self._scales = scales_of(bench, banks, responses, fits, among_siblings)
        base = bench.search.base
        # The base has answered each search pool whole.
        self._of_base: dict[str, dict[str, float]] = {}
        if base is not None:
            digest = bench.model_digest(base)
            for name, scale in self._scales.items():
                (row,) = response_matrix(responses, name, [digest], scale.items)
                self._of_base[name] = dict(zip(scale.items, row.tolist(), strict=True))
        self._base_scores = self.base_on({n: scale.items for n, scale in self._scales.items()})
        different = (
            {item.asked for name, ids in rung.items() for item in bench.benchmarks[name].find(ids)}
            for rung in self.rungs
        )
        self.asked_most = sum(map(len, different))

    def base_on(self, items: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """The base's share of right answers to items of the search pools; NaN where none is scored.

        Args:
            items: of each benchmark.

        Returns:
            By benchmark; empty without a base.
        """
        rows = {n: np.array([of[i] for i in items[n]]) for n, of in self._of_base.items()}
        return {
            name: float(np.nanmean(row)) if np.isfinite(row).any() else math.nan
            for name, row in rows.items()
        }

    @property
    def anchors(self) -> dict[str, list[str]]:
        """The items that every candidate is asked."""
        return {name: list(scale.anchors) for name, scale in self._scales.items()}

    @property
    def rungs(self) -> list[dict[str, list[str]]]:
        """What is asked in addition on each rung of a race: one rung where there is no race."""
        count = 1 + max(max(scale.rungs) for scale in self._scales.values())
        return [
            {
                name: [i for i, of in zip(scale.anchors, scale.rungs, strict=True) if of == rung]
                for name, scale in self._scales.items()
            }
            for rung in range(count)
        ]

    def asked_in(self, generation: int) -> list[dict[str, list[str]]]:
        """What the candidates of a generation are asked, rung by rung; see `mergelib.renewal`."""
        period = period_of(self._search, generation)
        if period == 0:
            return self.rungs
        reserved = self.unseen(self._search.deciding_items)
        asked: dict[str, list[list[str]]] = {}
        for name, scale in self._scales.items():
            # By two metrics of one benchmark the same items, which are answered once.
            asked[name] = asked.get(self._same[name]) or renewed(
                self._search, period, scale.choosing, reserved[name]
            )
        rungs = zip_longest(*asked.values(), fillvalue=[])
        return [dict(zip(asked, of_rung, strict=True)) for of_rung in rungs]

    def unseen(self, count: int) -> dict[str, list[str]]:
        """Items of the search pools that are no anchors, at random.

        Args:
            count: how many of each benchmark; fewer, or the anchors themselves, where it has not
                so many others.
        """
        return {
            name: self._in_order(name, others[:count]) or list(self._scales[name].anchors)
            for name, others in self._shuffled_others().items()
        }

    def further(self) -> dict[str, list[str]]:
        """What the challenger of an incumbent is asked: half as many more items as anchors.

        They are drawn from the other end of the order that `unseen` draws from, so that the items
        that decide between finalists have chosen none of them, as long as the pool has enough.
        """
        return {
            name: self._in_order(
                name, others[::-1][: math.ceil(len(self._scales[name].anchors) / 2)]
            )
            for name, others in self._shuffled_others().items()
        }

    def _shuffled_others(self) -> dict[str, list[str]]:
        random = np.random.default_rng([self._search.seed, 0xDEC1DE])  # a stream of its own
        shuffled: dict[str, list[str]] = {}
        for name, scale in self._scales.items():
            anchors = set(scale.anchors)
            others = [item for item in scale.items if item not in anchors]
            first = shuffled.get(self._same[name], [])
            # By two metrics of one benchmark the same items, which are answered once.
            shuffled[name] = (
                first
                if set(first) == set(others)
                else [others[n] for n in random.permutation(len(others))]
            )
        return shuffled

    def _in_order(self, name: str, items: Sequence[str]) -> list[str]:
        chosen = set(items)
        return [item for item in self._scales[name].items if item in chosen]

    def estimate(
        self, responses: pa.Table, models: Sequence[str], *, beyond_anchors: bool = False
    ) -> dict[str, Estimates]:
        """Estimate models' accuracy on each benchmark's search pool.

        Args:
            responses: to items of the search pools; others are passed over.
            models: digests.
            beyond_anchors: whether other items than the anchors were answered too, so that the
                anchors' weights do not hold.

        Returns:
            For each benchmark the models' estimates; NaN for one without a scored response.
        """
        return {
            name: self._estimator(
                response_matrix(responses, name, models, scale.items, scale.threshold),
                replace(scale.context, weights=None, clustered_anchors=False)
                if beyond_anchors
                else scale.context,
            )
            for name, scale in self._scales.items()
        }

    def fitness(
        self, responses: pa.Table, models: Sequence[str], *, beyond_anchors: bool = False
    ) -> NDArray[np.float64]:
        """What the optimiser is told of models: (n, k), maximised; see `Goals.fitness`."""
        return self._told(self.estimate(responses, models, beyond_anchors=beyond_anchors))

    def raced(self, answered: Sequence[Answered]) -> NDArray[np.float64]:
        """The fitness of a generation, (n, k), in which the dropped may not be ahead of others."""
        models = [candidate.model for candidate in answered]
        dropped = self._dropped([candidate.evaluation["items"] for candidate in answered])
        return behind(self.fitness(responses_table(answered), models), dropped)

    def _told(self, estimates: Mapping[str, Estimates]) -> NDArray[np.float64]:
        return self.of_means(np.stack([estimates[n].value for n in self.goals.names], axis=1))

    def of_means(
        self, scores: NDArray[np.float64], base: Mapping[str, float] | None = None
    ) -> NDArray[np.float64]:
        """What the optimiser would be told of models with these scores, (n, benchmarks).

        `base` has the base's scores on the same items (`base_on`), as those of few items are to be
        held to; by default those on the whole search pools, for estimates of a model's.

        Rounded, since with another number of threads equal estimates differ in their last digit,
        and a front takes the higher one for better.
        """
        base = self._base_scores if base is None else base
        told: NDArray[np.float64] = self.goals.fitness(scores, base).round(_DIGITS)
        return told

    def overtakes(self, responses: pa.Table, challenger: str, incumbent: str) -> bool:
        """Whether one model has a higher fitness than another on the items both have answered.

        Args:
            responses: with those of both models.
            challenger: a digest.
            incumbent: a digest.
        """
        means, common = [], {}
        for name in self.goals.names:
            items = np.array(self._scales[name].items)
            pair = response_matrix(responses, name, [challenger, incumbent], items.tolist())
            both = np.isfinite(pair).all(axis=0)
            common[name] = items[both].tolist()
            means.append(pair[:, both].mean(axis=1) if both.any() else np.full(2, np.nan))
        if not all(common.values()):
            return False
        one, other = self.of_means(np.stack(means, axis=1), self.base_on(common))
        return bool(one[0] > other[0])

    def table(
        self,
        generation: int,
        genomes: Sequence[Sequence[float]],
        recipes: Sequence[Recipe],
        answered: Sequence[Answered],
    ) -> pa.Table:
        """A generation's table (`generation_schema`), without its incumbent.

        `fitness` is what the optimiser is told, the mean over the objectives of a front: a number
        to sort by. Where a race ranks, who was dropped on the way is not ahead of the others.
        """
        models = [candidate.model for candidate in answered]
        columns = self._estimated(
            responses_table(answered),
            models,
            [candidate.evaluation["items"] for candidate in answered],
        )
        rows = []
        for row, candidate in enumerate(answered):
            evaluation = candidate.evaluation
            scored = columns["fitness"][row] is not None
            reason = evaluation["reason"] or (None if scored else "no answer could be scored")
            rows.append(
                {
                    "generation": generation,
                    "individual": candidate.model,
                    "genome": list(genomes[row]),
                    "recipe": recipes[row].to_yaml(),
                    "status": "ok" if scored else "failed",
                    "reason": reason,
                    "items": evaluation["items"],
                    "incumbent": False,
                    "reused": candidate.reused,
                    "seconds_merge": evaluation["seconds_merge"],
                    "seconds_answer": evaluation["seconds_answer"],
                    **{name: values[row] for name, values in columns.items()},
                }
            )
        return pa.Table.from_pylist(rows, schema=generation_schema(self._scales))

    def again(self, table: pa.Table, responses: pa.Table) -> pa.Table:
        """A table of candidates with this judge's estimates and fitness instead of another's.

        Args:
            table: some candidates', as `table` returns it.
            responses: theirs.
        """
        items = table["items"].to_pylist()
        models = table["individual"].to_pylist()
        columns = self._estimated(responses, models, items)
        for name, values in columns.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.field(name), [pa.array(values, pa.float64())])
        return table

    def _estimated(
        self, responses: pa.Table, models: Sequence[str], items: Sequence[int]
    ) -> dict[str, list[float | None]]:
        """The columns of a table of candidates that are this judge's opinion; None where failed."""
        estimates = self.estimate(responses, models)
        fitness = behind(self._told(estimates), self._dropped(items)).mean(axis=1)
        columns = {"fitness": fitness}
        for name, estimate in estimates.items():
            for what, numbers in zip(("estimate", "low", "high"), estimate, strict=True):
                columns[f"{what}_{name}"] = numbers
        scored = np.isfinite(fitness)
        return {
            name: [float(v) if ok else None for v, ok in zip(values, scored, strict=True)]
            for name, values in columns.items()
        }

    def told(self, table: pa.Table) -> NDArray[np.float64]:
        """What the optimiser is told of a generation's table, (candidates, k); NaN where failed."""
        scores = estimates_of(table, self.goals.names)
        fitness = self.of_means(scores)
        return behind(fitness, self._dropped(table["items"].to_pylist()))

    def _dropped(self, items: Sequence[int]) -> list[int]:
        """The rows of candidates that a race has put behind: they were not asked all anchors."""
        if not self._search.ranks_racers:
            return []
        return [row for row, count in enumerate(items) if count < self.asked_most]
