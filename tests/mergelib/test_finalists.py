from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mergelib.deciding import Round, leaders, rounds
from mergelib.errors import SearchError
from mergelib.evaluation import nothing_done
from mergelib.finalists import (
    Contender,
    best_of,
    better_half,
    finalists_table,
    front,
    front_hypervolume,
    with_uniform,
)
from mergelib.goals import Goals, estimates_of
from mergelib.intervals import mean_score, paired_difference, wilson
from mergelib.tables import Answered, responses_table


class _Told:
    """A judge without items: what it tells is made of the table's estimates by the real goals."""

    def __init__(self, *names: str) -> None:
        self.goals = Goals(names, len(names), None, {})

    def told(self, table: pa.Table) -> NDArray[np.float64]:
        return self.of_means(estimates_of(table, self.goals.names))

    def base_on(self, items: dict[str, list[str]]) -> dict[str, float]:
        return {}

    def of_means(
        self, scores: NDArray[np.float64], base: dict[str, float] | None = None
    ) -> NDArray[np.float64]:
        return self.goals.fitness(scores, base or {})


def _judge(*names: str) -> Any:
    return _Told(*names)


def _candidates(*rows: tuple[str, float | None, float | None], incumbent: str = "") -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "individual": name,
                "recipe": f"recipe of {name}",
                "status": "ok" if a is not None else "failed",
                "items": 10,
                "incumbent": name == incumbent,
                "estimate_a": a,
                "estimate_b": b,
            }
            for name, a, b in rows
        ]
    )


def _contender(name: str, role: str) -> Contender:
    return Contender(name, name, role, f"recipe of {name}", {"a": 0.5})


def _responses(right: dict[str, str], benchmark: str = "a") -> pa.Table:
    """Rows from strings of 1, 0 and - (not scored), an item each."""
    answers = []
    for model, marks in right.items():
        asked = {benchmark: [str(n) for n in range(len(marks))]}
        evaluation = nothing_done("ok", None)
        evaluation["responses"][benchmark] = [
            [None, None, "", "why"] if mark == "-" else [int(mark), float(mark), "", None]
            for mark in marks
        ]
        answers.append(Answered(model, asked, evaluation, False))
    return responses_table(answers)


def test_the_best_estimates_are_chosen_once_each_and_the_latest_of_equals() -> None:
    table = _candidates(
        ("w", 0.9, 0), ("x", 0.5, 0), ("y", None, None), ("w", 0.9, 0), ("z", 0.5, 0), ("v", 0.1, 0)
    )
    chosen = best_of(table, _judge("a"), 3, "finalist")
    assert [c.model for c in chosen] == ["w", "z", "x"]
    assert chosen[0].estimates == {"a": 0.9}
    assert chosen[0].role == "finalist"
    with pytest.raises(SearchError, match="no candidate could be scored"):
        best_of(_candidates(("y", None, None)), _judge("a"), 3, "finalist")


def test_smoothed_neighbours_of_the_first_make_room_for_others() -> None:
    rng = np.random.default_rng(0)
    places = np.concatenate([np.linspace(0, 1, 11), np.full(20, 0.2) + 0.001 * np.arange(20)])
    bumps = 0.6 * np.exp(-20 * (places - 0.2) ** 2) + 0.58 * np.exp(-20 * (places - 0.8) ** 2)
    told = bumps + 0.05 * rng.standard_normal(len(places))
    rows = [(f"{n} at {x:.1f}", a, x) for n, (x, a) in enumerate(zip(places, told, strict=True))]
    rows.insert(5, ("failed", None, 0.5))
    table = _candidates(*((name, a, 0) for name, a, _ in rows))
    table = table.append_column("genome", pa.array([[x] for *_, x in rows]))
    chosen = best_of(table, _judge("a"), 4, "finalist", smooth=True)
    assert chosen[0].model.endswith("at 0.2")
    assert any(c.model.endswith(("at 0.7", "at 0.8", "at 0.9")) for c in chosen)
    estimates = {name: a for name, a, _ in rows}
    assert [c.estimates["a"] for c in chosen] == [estimates[c.model] for c in chosen]


def test_the_incumbent_of_a_race_comes_first() -> None:
    table = _candidates(("w", 0.9, 0), ("x", 0.5, 0), ("y", 0.7, 0), incumbent="x")
    assert [c.model for c in best_of(table, _judge("a"), 2, "finalist")] == ["x", "w"]


def test_several_objectives_take_front_after_front_without_doubles() -> None:
    table = _candidates(
        ("left", 0.1, 0.9),
        ("right", 0.9, 0.1),
        ("same as right", 0.9, 0.1),
        ("inner", 0.5, 0.05),
        ("worst", 0.05, 0.04),
    )
    chosen = [c.model for c in best_of(table, _judge("a", "b"), 3, "finalist")]
    assert sorted(chosen) == ["inner", "left", "same as right"]


def test_the_better_half_leaves_out_the_dominated_the_failed_and_doubles() -> None:
    contenders = [_contender(name, "finalist") for name in "abcdef"]
    nan = float("nan")
    estimates = [[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.4, 0.4], [nan, 0.9], [0.9, 0.1]]
    kept = better_half(contenders, np.array(estimates))
    assert {contender.model for contender in kept} == {"a", "b", "c"}


def test_a_uniform_merge_on_the_front_is_a_member_of_it() -> None:
    """It is no finalist, and yet nothing is better than it."""
    contenders = [
        _contender("a", "endpoint"),
        _contender("u", "uniform"),
        _contender("f", "finalist"),
    ]
    twice = [*contenders, _contender("f", "uniform")]
    roles = [(one.model, one.role) for one in with_uniform(twice, {"u", "f"})]
    assert roles == [*((one.model, one.role) for one in twice), ("u", "finalist")]
    assert with_uniform(contenders, {"f"}) == contenders


def test_the_deciding_items_decide() -> None:
    contenders = [_contender(name, "finalist") for name in "xyz"]

    def order(**marks: str) -> list[str]:
        return [c.model for c in leaders(contenders, _responses(marks), _judge("a"))]

    assert order(x="1100", y="1110", z="0000") == ["y", "x", "z"]
    assert order(x="1100", y="1110", z="1100") == ["y", "x", "z"]
    assert order(x="1---", y="0000", z="0001") == ["z", "y"]
    with pytest.raises(SearchError, match="no finalist could be scored"):
        order(x="----", y="----", z="----")
    with pytest.raises(SearchError, match="no finalist could be scored"):
        leaders([], _responses({"x": "1100"}), _judge("a"))


class _Pools:
    """A judge's further items: so many of each benchmark, drawn in this order."""

    def __init__(self, **sizes: int) -> None:
        self._pools = {name: [f"{name}/{n}" for n in range(size)] for name, size in sizes.items()}

    def unseen(self, count: int) -> dict[str, list[str]]:
        return {name: pool[:count] for name, pool in self._pools.items()}


def _rounds(finalists: int, items: int, **sizes: int) -> list[Round]:
    judge: Any = _Pools(**sizes)
    return rounds(judge, finalists, items)


def test_rounds_halve_for_as_many_answers_as_all_finalists_would_give() -> None:
    halved = _rounds(5, 200, a=1000)
    assert [(one.contenders, len(one.asked["a"])) for one in halved] == [
        (10, 50),
        (5, 50),
        (3, 100),
    ]
    assert [i for one in halved for i in one.asked["a"]] == [f"a/{n}" for n in range(200)]
    assert sum(n * len(asked["a"]) for n, asked in _rounds(8, 200, a=1000)) == 8 * 200


def test_rounds_go_by_the_items_that_there_are() -> None:
    small = _rounds(5, 200, a=40)
    assert [len(one.asked["a"]) for one in small] == [10, 10, 20]
    unequal = _rounds(1, 200, a=40, b=8)
    assert [one.contenders for one in unequal] == [2, 1, 1]
    assert [len(one.asked["b"]) for one in unequal] == [8, 0, 0]
    assert [one.asked for one in _rounds(4, 1, a=40)] == [{"a": ["a/0"]}, {}, {}]


def test_scores_and_paired_differences_are_to_the_best_endpoint() -> None:
    contenders = [
        _contender("base", "base"),
        _contender("weak", "endpoint"),
        _contender("strong", "endpoint"),
        _contender("even", "uniform"),
        _contender("won", "finalist"),
        _contender("lost", "finalist"),
    ]
    marks = {
        "base": "0000000000",
        "weak": "1000000000",
        "strong": "1110000000",
        "even": "1111000000",
        "won": "1111111-00",
        "lost": "1111100000",
    }
    table = finalists_table(contenders, {"won"}, _responses(marks), ["a"])
    rows = {row["model"]: row for row in table.to_pylist()}
    assert [row["role"] for row in rows.values()] == [
        *("base", "endpoint", "endpoint", "uniform", "winner", "finalist")
    ]
    assert rows["won"]["items"] == 9
    assert rows["won"]["score"] == pytest.approx(7 / 9)
    interval = wilson(7, 9)
    assert (rows["won"]["low"], rows["won"]["high"]) == pytest.approx((interval.low, interval.high))
    ours = [1, 1, 1, 1, 1, 1, 1, float("nan"), 0, 0]
    gap = paired_difference(ours, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    assert rows["won"]["diff"] == pytest.approx(gap.value) == pytest.approx(4 / 9)
    assert rows["won"]["diff_low"] == pytest.approx(gap.low)
    assert [rows["strong"][key] for key in ("diff", "diff_low", "diff_high")] == [0, 0, 0]
    to_uniform = paired_difference(ours, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    assert rows["won"]["uniform_diff"] == pytest.approx(to_uniform.value)
    assert rows["won"]["uniform_diff_low"] == pytest.approx(to_uniform.low)
    assert rows["weak"]["recipe"] is None
    assert rows["won"]["recipe"] == "recipe of won"


def test_a_recipe_in_two_roles_has_rows_in_both() -> None:
    contenders = [
        _contender("parent", "endpoint"),
        _contender("same", "uniform"),
        _contender("same", "finalist"),
    ]
    table = finalists_table(contenders, {"same"}, _responses({"parent": "10", "same": "11"}), ["a"])
    rows = table.to_pylist()
    assert [row["role"] for row in rows] == ["endpoint", "uniform", "winner"]
    assert [row["score"] for row in rows] == [0.5, 1, 1]
    assert rows[2]["uniform_diff"] == 0


def test_a_parent_or_winner_that_was_not_scored_stops_the_end() -> None:
    contenders = [
        _contender("parent", "endpoint"),
        _contender("even", "uniform"),
        _contender("won", "finalist"),
    ]
    responses = _responses({"parent": "10", "even": "10", "won": "--"})
    with pytest.raises(SearchError, match="won has no scored answer to a's fresh items"):
        finalists_table(contenders, {"won"}, responses, ["a"])


def test_a_front_counts_endpoints_too() -> None:
    parents = [_contender("parent", "endpoint"), _contender("even", "uniform")]
    contenders = [*parents, *(_contender(name, "finalist") for name in "xyz")]
    responses = pa.concat_tables(
        [
            _responses(
                {"parent": "1110", "even": "0000", "x": "1100", "y": "1111", "z": "1000"}, "a"
            ),
            _responses(
                {"parent": "1100", "even": "0000", "x": "1000", "y": "1000", "z": "1111"}, "b"
            ),
        ]
    )
    assert front(contenders, responses, Goals(("a", "b"), 2, None, {})) == {"parent", "y", "z"}
    table = finalists_table(contenders, {"parent", "y", "z"}, responses, ["a", "b"])
    roles = {row["model"]: row["role"] for row in table.to_pylist()}
    del roles["even"]
    assert roles == {"parent": "endpoint", "x": "finalist", "y": "winner", "z": "winner"}
    # y dominates 1 x .25, z .25 x 1, both .25 x .25.
    assert front_hypervolume(table, ["a", "b"], ["winner"]) == pytest.approx(0.25 + 0.25 - 0.0625)
    assert front_hypervolume(table, ["a", "b"], ["base"]) == 0


def test_scores_between_0_and_1_are_averaged_and_compared_as_they_are() -> None:
    rng = np.random.default_rng(0)
    scores = {name: rng.random(30).tolist() for name in ("parent", "even", "won")}
    asked = {"a": [str(n) for n in range(30)]}
    answers = []
    for name, values in scores.items():
        evaluation = nothing_done("ok", None)
        evaluation["responses"]["a"] = [[None, value, "", None] for value in values]
        answers.append(Answered(name, asked, evaluation, False))
    contenders = [
        _contender("parent", "endpoint"),
        _contender("even", "uniform"),
        _contender("won", "finalist"),
    ]
    table = finalists_table(contenders, {"won"}, responses_table(answers), ["a"])
    won = table.to_pylist()[2]
    interval = mean_score(scores["won"])
    assert won["score"] == pytest.approx(np.mean(scores["won"]))
    assert (won["low"], won["high"]) == pytest.approx((interval.low, interval.high))
    gap = paired_difference(scores["won"], scores["parent"])
    assert [won["diff"], won["diff_low"], won["diff_high"]] == pytest.approx(list(gap))
