import numpy as np
import pyarrow as pa
import pytest

from mergelib.errors import InputError
from mergelib.evaluation import nothing_done
from mergelib.tables import (
    RESPONSE_SCHEMA,
    Answered,
    combined,
    generation_schema,
    response_matrix,
    responses_table,
)

ASKED = {"ja": ["i1", "i2"], "de": ["i1"]}


@pytest.fixture
def evaluation():
    return nothing_done("ok", None) | {
        "responses": {
            "ja": [[1, 1.0, "12", None], [None, None, "", "no number in the answer"]],
            "de": [[0, 0.25, "13", None]],
        },
        "items": 3,
        "seconds_answer": 1.5,
    }


def test_a_row_for_each_model_and_item(evaluation):
    table = responses_table([Answered("m", ASKED, evaluation, False)])
    assert table.schema == RESPONSE_SCHEMA
    columns = ("model", "benchmark", "item_id", "response", "value", "answer", "reason", "seconds")
    assert table.to_pylist() == [
        dict(zip(columns, row, strict=True))
        for row in (
            ("m", "ja", "i1", 1, 1.0, "12", None, 0.5),
            ("m", "ja", "i2", None, None, "", "no number in the answer", 0.5),
            ("m", "de", "i1", 0, 0.25, "13", None, 0.5),
        )
    ]


def test_a_failed_model_is_not_scored_with_the_reason():
    failed = nothing_done("failed", "tensor x has values that are not finite")
    rows = responses_table([Answered("m", ASKED, failed, False)]).to_pylist()
    assert [(row["benchmark"], row["item_id"]) for row in rows] == [
        ("ja", "i1"),
        ("ja", "i2"),
        ("de", "i1"),
    ]
    assert {row["response"] for row in rows} == {row["value"] for row in rows} == {None}
    assert {row["reason"] for row in rows} == {"tensor x has values that are not finite"}
    assert {row["seconds"] for row in rows} == {0}


def test_no_evaluations_are_an_empty_table_with_its_columns():
    assert responses_table([]).schema == RESPONSE_SCHEMA
    assert responses_table([Answered("m", {}, nothing_done("ok", None), True)]).num_rows == 0


def test_responses_that_do_not_fit_the_items_are_refused(evaluation):
    with pytest.raises(ValueError, match="zip"):
        responses_table([Answered("m", {"ja": ["i1"]}, evaluation, False)])


def test_a_matrix_has_nan_where_nothing_was_scored(evaluation):
    other = nothing_done("failed", "no")
    table = responses_table(
        [Answered("m", ASKED, evaluation, False), Answered("n", {"ja": ["i1"]}, other, True)]
    )
    matrix = response_matrix(table, "ja", ["n", "m", "unknown"], ["i2", "i1", "i9"])
    nan = np.nan
    np.testing.assert_array_equal(matrix, [[nan] * 3, [nan, 1, nan], [nan] * 3])
    np.testing.assert_array_equal(response_matrix(table, "de", ["m"], ["i1"]), [[0]])
    assert response_matrix(table, "de", [], ["i1"]).shape == (0, 1)


def test_a_generations_columns():
    schema = generation_schema(["zoo_ja", "zoo_de"])
    assert schema.names == [
        *("generation", "individual", "genome", "recipe", "fitness", "status", "reason", "items"),
        "incumbent",
        *("estimate_zoo_ja", "low_zoo_ja", "high_zoo_ja"),
        *("estimate_zoo_de", "low_zoo_de", "high_zoo_de"),
        *("reused", "seconds_merge", "seconds_answer"),
    ]
    assert schema.field("genome").type == pa.list_(pa.float64())
    assert schema.field("reused").type == pa.bool_()


def test_values_stand_for_responses_where_there_are_none():
    evaluation = nothing_done("ok", None) | {
        "responses": {"ja": [[None, 0.25, "", None], [None, 0.5, "", None], [1, 0.0, "", None]]},
        "items": 3,
    }
    table = responses_table([Answered("m", {"ja": ["i1", "i2", "i3"]}, evaluation, False)])
    items = ["i3", "i2", "i1", "i0"]
    kept = response_matrix(table, "ja", ["m"], items)
    np.testing.assert_array_equal(kept, [[1, 0.5, 0.25, np.nan]])
    binary = response_matrix(table, "ja", ["m"], items, 0.3)
    np.testing.assert_array_equal(binary, [[1, 1, 0, np.nan]])
    evaluation["responses"]["ja"][1][1] = 12.0
    table = responses_table([Answered("m", {"ja": ["i1", "i2", "i3"]}, evaluation, False)])
    with pytest.raises(InputError, match=r"ja: score 12 for item 'i2' is outside 0 to 1"):
        response_matrix(table, "ja", ["m"], items)


def _part(items: list[str], status: str = "ok") -> Answered:
    reason = None if status == "ok" else "out of memory"
    evaluation = nothing_done(status, reason)
    evaluation["items"], evaluation["tokens"] = len(items), 10 * len(items)
    if status == "ok":
        evaluation["responses"]["b"] = [[1, 1.0, "", None] for _ in items]
    return Answered("model", {"b": items}, evaluation, False)


def test_parts_of_an_evaluation_are_put_together() -> None:
    whole = combined([_part(["1", "2"]), _part(["3"])])
    assert whole.asked == {"b": ["1", "2", "3"]}
    assert len(whole.evaluation["responses"]["b"]) == 3
    assert (whole.evaluation["items"], whole.evaluation["tokens"]) == (3, 30)
    assert responses_table([whole])["response"].to_pylist() == [1, 1, 1]


def test_an_evaluation_of_which_a_part_failed_has_failed_and_its_cost_counts() -> None:
    whole = combined([_part(["1", "2"]), _part(["3"], "failed")])
    assert whole.evaluation["status"] == "failed"
    assert whole.evaluation["reason"] == "out of memory"
    assert whole.evaluation["tokens"] == 30
    assert responses_table([whole])["response"].to_pylist() == [None, None, None]
