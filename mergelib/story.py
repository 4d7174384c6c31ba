"""A search while it runs, in words, tables and pictures: what Prefect's UI shows of it.

All of it is read from the run folder, so that any process can tell it at any time. The report at
the end (`mergelib.report`) speaks of fresh items; until then there are only estimates.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from mergelib.evolution.front import non_dominated
from mergelib.finalists import best_of, parents
from mergelib.fitness import Judge
from mergelib.goals import told
from mergelib.history import generations_of
from mergelib.intervals import mean_score
from mergelib.judging import candidates_of, judge_of
from mergelib.ledger import account, spent_by
from mergelib.pictures import convergence, growth, trade_offs
from mergelib.racing import comparable
from mergelib.report import percent
from mergelib.runs import Run
from mergelib.smoothing import smoothed
from mergelib.stopping import progress_of
from mergelib.tables import response_matrix
from mergelib.workbench import Workbench, total_items

Row = dict[str, Any]

_SHORT = 8
"""Digits of a recipe's digest that stand for it in tables and names."""


@dataclass(frozen=True)
class Story:
    """What a run has come to.

    Attributes:
        run: the run folder; it is prepared.
    """

    run: Run

    @cached_property
    def _bench(self) -> Workbench:
        return self.run.workbench()

    @cached_property
    def _judge(self) -> Judge:
        return judge_of(self.run)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return self._judge.goals.names

    @cached_property
    def _generations(self) -> list[pa.Table]:
        return generations_of(self.run)

    @cached_property
    def _all(self) -> pa.Table:
        """All candidates so far."""
        return candidates_of(self.run)

    @cached_property
    def headline(self) -> str:
        """How far the search is, how good, and what it has cost, in a line."""
        done, asked = len(self._generations), self.run.search.evolution.generations
        if not done:
            return f"prepared; {asked} generations to come"
        cost = spent_by(self.run)
        hours = cost["seconds"] / 3600
        return (
            f"generation {done} of {asked}: {self._best}; {cost['items']:,} items answered in "
            f"{_duration(hours)}, about {_duration(hours / done * (asked - done))} to come"
        )

    @property
    def _best(self) -> str:
        if self._judge.goals.front:
            dominated = progress_of(self.run, self._judge)[-1]
            return f"the front dominates {percent(float(dominated))} % by its estimates"
        table = self._all
        fitness = self._judge.told(table)
        if self._smooth:
            genomes, items = (np.array(table[n].to_pylist()) for n in ("genome", "items"))
            fitness = smoothed(genomes, fitness, items)
        if np.isnan(fitness).all():
            return "no candidate scored"
        best = f"best {told(float(np.nanmax(fitness)))}"
        return f"{best}, smoothed" if self._smooth else best

    @property
    def _smooth(self) -> bool:
        """Whether the best is told by smoothed estimates, as the finalists will be chosen."""
        return not self.run.search.ranks_racers

    @property
    def population(self) -> list[Row]:
        """The last generation's candidates, the best first; in a race, those that got further."""
        if not self._generations:
            return []
        rows = self._generations[-1].to_pylist()
        rows.sort(
            key=lambda row: (-1, 0.0) if row["fitness"] is None else (row["items"], row["fitness"])
        )
        return [
            {
                "candidate": row["individual"][:_SHORT],
                **{f"{name}, %": _estimate(row, name) for name in self._names},
                "items": row["items"],
                "seconds": f"{row['seconds_merge'] + row['seconds_answer']:.1f}",
                "note": _note(row),
            }
            for row in reversed(rows)
        ]

    @property
    def front(self) -> list[Row]:
        """The best trade-offs so far, by their estimates; empty for a search of one best model."""
        if not (self._judge.goals.front and self._generations):
            return []
        table = self._all
        fitness = self._judge.told(table)
        able = comparable(self.run.search, table) & ~np.isnan(fitness).any(axis=1)
        scored = np.flatnonzero(able)
        members = scored[non_dominated(fitness[scored])]
        rows = {row["individual"]: row for row in table.take(pa.array(members)).to_pylist()}
        ordered = sorted(rows.values(), key=lambda row: -row[f"estimate_{self._names[0]}"])
        return [
            {
                "candidate": row["individual"][:_SHORT],
                **{f"{name}, %": _estimate(row, name) for name in self._names},
                "found in generation": row["generation"] + 1,
            }
            for row in ordered
        ]

    @cached_property
    def _parents(self) -> list[Row]:
        """The base's and the endpoints' scores on the items of the search, a row each benchmark."""
        contenders = parents(self._bench)
        responses = self.run.table("responses/prepare.parquet")
        models = [contender.model for contender in contenders]
        rows = []
        for name in self._names:
            items = [item.item_id for item in self._bench.benchmarks[name].pool("search")]
            scores = mean_score(response_matrix(responses, name, models, items))
            for number, contender in enumerate(contenders):
                row = {"model": contender.model, "name": contender.name, "role": contender.role}
                limits = {what: float(getattr(scores, what)[number]) for what in ("low", "high")}
                score = float(scores.value[number])
                rows.append({**row, "benchmark": name, "score": score, **limits})
        return rows

    @property
    def comparison(self) -> str:
        """The best candidate so far beside its parents, as Markdown."""
        lines = ["| model | " + " | ".join(f"{name}, %" for name in self._names) + " |"]
        lines.append("|---|" + "---|" * len(self._names))
        by_model: dict[str, list[Row]] = {}
        for row in self._parents:
            by_model.setdefault(row["model"], []).append(row)
        for rows in by_model.values():
            cells = " | ".join(_interval(row["score"], row["low"], row["high"]) for row in rows)
            lines.append(f"| {rows[0]['role']} {rows[0]['name']} | {cells} |")
        for label, row in self._candidates():
            cells = " | ".join(_estimate(row, name) for name in self._names)
            lines.append(f"| {label} `{row['individual'][:_SHORT]}` | {cells} |")
        return "\n".join(
            [
                *lines,
                "",
                "The parents' scores are of all items of the search, with 95 % intervals; a "
                "merge's are estimates from a few of them, and the best of many flatters itself. "
                "The report at the end compares all of them on items that the search never used.",
            ]
        )

    def _candidates(self) -> Iterator[tuple[str, Row]]:
        """The best uniform merge and the best candidate so far; of a front, its first member."""
        tables = [("best uniform merge", self.run.table("uniform.parquet"), False)]
        if self._generations:
            tables.append(("best candidate", self._all, self._smooth))
        for label, table, smooth in tables:
            (best,) = best_of(table, self._judge, 1, "", smooth=smooth)
            chosen = pa.compute.equal(table["individual"], best.model)
            yield label, table.filter(chosen).to_pylist()[-1]

    @property
    def convergence(self) -> str:
        """The search's pictures as Markdown; empty before the first generation."""
        if not self._generations:
            return ""
        if not self._judge.goals.front:
            shown = self._parents if len(self._names) == 1 else []
            picture = convergence(self.run.search, [self._all], shown)
            return picture_in_markdown("Candidates' estimates", picture)
        trade = trade_offs([self._all], self._parents, self._names)
        grown = growth(progress_of(self.run, self._judge).tolist())
        return (
            picture_in_markdown("Trade-offs", trade)
            + "\n\n"
            + picture_in_markdown("What the front dominates", grown)
        )

    @property
    def ledger(self) -> list[Row]:
        """What has been spent so far, by stage, and what a full evaluation would have cost."""
        total = account(self.run.events(), total_items(self._bench.benchmarks.values()))
        stages = {**total["stages"], "all": {"evaluations": total["evaluations"], **total["spent"]}}
        full = {"evaluations": total["models"], **total["full_evaluation"]}
        return [
            {
                "stage": stage,
                "evaluations": cost["evaluations"],
                "items": f"{cost['items']:,}",
                "tokens": f"{cost['tokens']:,.0f}",
                "FLOPs": f"{cost['flops']:.2e}",
                "time": _duration(cost["seconds"] / 3600),
            }
            for stage, cost in {**stages, "these models on all items": full}.items()
        ]


def in_name(label: str, digest: str) -> str:
    """What an evaluation is called: its label and its model, unless the label says it already."""
    short = digest[:_SHORT]
    return label if label.endswith(short) else f"{label}, {short}"


def score_in_name(responses: Mapping[str, list[list[Any]]]) -> str:
    """What a finished evaluation's name ends in: ": 63.3 %", a share for each benchmark.

    Args:
        responses: of each benchmark, `mergelib.evaluation.Evaluation.responses`.
    """
    shares = []
    for of_benchmark in responses.values():
        values = [value for _, value, _, _ in of_benchmark if value is not None]
        shares.append(f"{percent(float(np.mean(values)))} %" if values else "not scored")
    return f": {' / '.join(shares) or 'failed'}"


def picture_in_markdown(title: str, svg: str) -> str:
    """A picture that Markdown shows without a file beside it."""
    data = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return f"![{title}](data:image/svg+xml;base64,{data})"


def _estimate(row: Row, name: str) -> str:
    if row[f"estimate_{name}"] is None:
        return ""
    return _interval(row[f"estimate_{name}"], row[f"low_{name}"], row[f"high_{name}"])


def _interval(score: float, low: float, high: float) -> str:
    return f"{percent(score)} ({percent(low)} to {percent(high)})"


def _note(row: Row) -> str:
    if row["status"] != "ok":
        return f"{row['status']}: {row['reason']}"
    said = ["answered before"] if row["reused"] else []
    return ", ".join([*said, *(["the one to beat"] if row["incumbent"] else [])])


def _duration(hours: float) -> str:
    """Hours in the unit that a person would choose."""
    if hours >= 2:
        return f"{hours:.1f} hours"
    minutes = 60 * hours
    return f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} s"
