"""The end of a search in words, tables and a picture: one self-contained page."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mergelib.evolution.front import knee
from mergelib.finalists import front_hypervolume
from mergelib.judging import candidates_of, judge_of
from mergelib.pictures import convergence, growth, trade_offs
from mergelib.recalibration import again
from mergelib.remarks import remarks
from mergelib.reservations import reservations
from mergelib.runs import Run
from mergelib.search import Search
from mergelib.stopping import progress_of

_ROLES = ("base", "endpoint", "uniform", "finalist", "winner")
"""The order in which tables list models."""


def percent(share: float) -> str:
    """A share as a percentage, one decimal."""
    return f"{100 * share:.1f}"


def signed(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}"


@dataclass(frozen=True)
class Result:
    """What a finished run says.

    Attributes:
        run: the run folder; finalists.parquet is there.
        ledger: see `mergelib.ledger.account`.
    """

    run: Run
    ledger: Mapping[str, Any]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of finalists.parquet: by role, and then the best on the first benchmark."""
        rows: list[dict[str, Any]] = self.run.table("finalists.parquet").to_pylist()
        first = {r["model"]: r["score"] for r in rows if r["benchmark"] == rows[0]["benchmark"]}
        return sorted(rows, key=lambda row: (_ROLES.index(row["role"]), -first[row["model"]]))

    @cached_property
    def names(self) -> list[str]:
        """The benchmarks, in the order of the objectives."""
        return list(dict.fromkeys(row["benchmark"] for row in self.rows))

    def with_role(self, role: str) -> list[dict[str, Any]]:
        """The rows of one role."""
        return [row for row in self.rows if row["role"] == role]

    def named(self, row: Mapping[str, Any]) -> str:
        """A row's model for a table: its role and what it is called."""
        is_front = row["role"] == "winner" and self.run.search.front
        return f"{'front' if is_front else row['role']} {row['name'].split()[-1]}"

    @property
    def verdict(self) -> str:
        """The outcome in one or two sentences."""
        if self.run.search.front:
            table = self.run.table("finalists.parquet")
            front = front_hypervolume(table, self.objectives, ["winner"])
            endpoints = front_hypervolume(table, self.objectives, ["endpoint"])
            members = len(self.with_role("winner")) // len(self.names)
            if not members:
                limits = " and keeps the constraints" if self.run.search.constraints else ""
                return (
                    f"No merge is better than the endpoints at anything{limits}: nothing is "
                    "exported."
                )
            sentence = (
                f"A front of {members} models. On fresh items it dominates {percent(front)} % of "
                f"the space of scores; the endpoints dominate {percent(endpoints)} %."
            )
            return " ".join([sentence, *self.constraints])
        winners = [row for row in self.with_role("winner") if row["benchmark"] in self.objectives]
        sentences = [*map(self._won, winners), *self.constraints]
        if len(winners) > 1:
            (mean,) = (r["score"] for r in self._weighted_rows() if r["role"] == "winner")
            sentences.insert(0, f"The winner's weighted mean is {percent(mean)} %.")
        return " ".join(sentences)

    def _won(self, winner: Mapping[str, Any]) -> str:
        """What is said of one best model's score on one objective."""
        of = f" of {winner['benchmark']}" if len(self.names) > 1 else ""
        sentence = (
            f"The winner answers {percent(winner['score'])} % of {winner['items']} fresh items"
            f"{of}: "
            f"{_gap(winner, 'diff')} to the best endpoint, "
            f"{_gap(winner, 'uniform_diff')} to the best uniform merge."
        )
        if winner["diff_low"] <= 0:
            sentence += " The first interval holds 0: the search has not shown a gain."
        return sentence

    @property
    def objectives(self) -> list[str]:
        """The benchmarks to do well on; the others only limit."""
        return self.names[: len(self.run.search.objectives)]

    @property
    def constraints(self) -> list[str]:
        """A sentence for each constraint and each exported model, from the fresh items."""
        goals = self.run.workbench().goals
        base = {row["benchmark"]: row["score"] for row in self.with_role("base")}
        sentences = []
        for name, floor in goals.floors(base).items():
            limit = goals.constraints[name]
            meant = (
                f"at least {percent(floor)} %"
                if limit.at_least is not None
                else f"at most {percent(limit.below_base or 0.0)} points below the base, "
                f"{percent(floor)} %"
            )
            for row in self.with_role("winner"):
                if row["benchmark"] == name:
                    kept = "kept" if row["score"] >= floor else "not kept on the fresh items"
                    sentences.append(
                        f"{name}: {meant}; {self.named(row)} has {percent(row['score'])} % "
                        f"({percent(row['low'])} to {percent(row['high'])}): {kept}."
                    )
        return sentences

    def remarks(self, name: str) -> list[str]:
        """What a benchmark's scores do not tell, from the fresh items; see `mergelib.remarks`."""
        models = {row["model"]: self.named(row) for row in self.rows if row["benchmark"] == name}
        responses = self.run.table("responses/fresh.parquet")
        check = self.run.workbench().benchmarks[name].language
        return remarks(responses, name, models, check)

    @property
    def knee(self) -> str | None:
        """The front's member that gives up least of everything; None without a front of three."""
        winners = self.with_role("winner")
        if not self.run.search.front:
            return None
        scores: dict[str, dict[str, float]] = {}
        for row in winners:
            scores.setdefault(self.named(row), {})[row["benchmark"]] = row["score"]
        matrix = np.array([[of[name] for name in self.objectives] for of in scores.values()])
        if len(matrix) < 3:
            return None
        number = knee(matrix)
        return None if number is None else list(scores)[number]

    @cached_property
    def picture(self) -> str:
        """Convergence of a search with one objective, the trade-offs of one with several; SVG."""
        tables = [candidates_of(self.run)]
        if self.run.search.front:
            return trade_offs(tables, self.rows, self.names)
        return convergence(self.run.search, tables, self._weighted_rows())

    def _weighted_rows(self) -> list[dict[str, Any]]:
        """A row for each model with the weighted means over the objectives of score and ends."""
        weights = self.run.workbench().goals.weights or (1.0,)
        models: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self.rows:
            if row["benchmark"] in self.objectives:
                weight = weights[self.objectives.index(row["benchmark"])]
                empty = {**row, "score": 0.0, "low": 0.0, "high": 0.0}
                own = models.setdefault((row["model"], row["role"]), empty)
                for what in ("score", "low", "high"):
                    own[what] += weight * row[what]
        return list(models.values())

    @cached_property
    def growth(self) -> str | None:
        """What the front on estimates dominates after each generation, SVG; None without one."""
        if not self.run.search.front:
            return None
        return growth(progress_of(self.run, judge_of(self.run)).tolist())

    @property
    def stage_lines(self) -> list[tuple[str, int, int, float]]:
        """Stage, evaluations, items and seconds, in the order in which they were first needed."""
        return [
            (stage, cost["evaluations"], cost["items"], cost["seconds"])
            for stage, cost in self.ledger["stages"].items()
        ]

    @property
    def cost_lines(self) -> list[tuple[str, str, str]]:
        """Label, spent, and what a full evaluation would have cost."""
        spent, full = self.ledger["spent"], self.ledger["full_evaluation"]
        return [
            ("items answered", f"{spent['items']:,}", f"{full['items']:,}"),
            ("tokens", f"{spent['tokens']:,}", f"{full['tokens']:,.0f}"),
            ("FLOPs", f"{spent['flops']:.2e}", f"{full['flops']:.2e}"),
            ("seconds", f"{spent['seconds']:,.0f}", f"{full['seconds']:,.0f}"),
        ]

    @property
    def saving(self) -> str:
        """How much less than a full evaluation it was, in one sentence."""
        share = 1 / self.ledger["times_less"]
        return (
            f"{self.ledger['spent']['items']:,} items answered, {100 * share:.1f} % of a full "
            f"evaluation of the same {self.ledger['models']} models "
            f"({self.ledger['times_less']:.1f} times less)"
        )


def _calibrated_with(search: Search) -> str:
    calibration = search.fitness.calibration
    if calibration.source == "self":
        return f"{calibration.models} random merges"
    return f"the responses in {_short(calibration.source)}"


def _gap(row: Mapping[str, Any], name: str) -> str:
    """A paired difference with its 95 % interval, in points."""
    low, high = signed(row[f"{name}_low"]), signed(row[f"{name}_high"])
    return f"{signed(row[name])} points (95 %: {low} to {high})"


def render_report(result: Result) -> str:
    """The whole page as HTML, with everything it shows inside it."""
    run, search, ledger = result.run, result.run.search, result.ledger
    winners = result.with_role("winner")
    banks, bench = run.table("bank.parquet"), run.workbench()
    bank = banks.select(["benchmark", "anchor", "rung"]).to_pylist()
    deciding = run.table("responses/deciding.parquet").group_by(["benchmark", "item_id"])
    environment = Environment(undefined=StrictUndefined, autoescape=True)
    template = environment.from_string(
        files("mergelib").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        search=search,
        base=_short(search.base) if search.base else None,
        endpoints=[_short(endpoint) for endpoint in search.endpoints],
        names=result.names,
        rows=result.rows,
        verdict=result.verdict,
        picture=Markup(result.picture),
        growth=Markup(result.growth or ""),
        deciding=deciding.aggregate([]).num_rows // len(result.names),
        ledger=ledger,
        costs=result.cost_lines,
        result=result,
        anchors=max(Counter(row["benchmark"] for row in bank if row["anchor"]).values()),
        rungs=1 + max(row["rung"] for row in bank if row["anchor"]),
        optimism=[
            (row["benchmark"], row["estimate"] - row["score"])
            for row in winners
            if not search.front
        ],
        recipes=list({row["name"]: row["recipe"] for row in winners}.items()),
        search_file=run.path("search.yaml").read_text(encoding="utf-8"),
        fits=run.json("intervals.json"),
        calibrated_with=_calibrated_with(search),
        calibrated_again=bool(again(bench, banks)),
        reservations=reservations(bench),
        items={
            name: max(r["items"] for r in result.rows if r["benchmark"] == name)
            for name in result.names
        },
        named=result.named,
        percent=percent,
        signed=signed,
    )


def _short(reference: str) -> str:
    return reference.rstrip("/").rsplit("/", 1)[-1]
