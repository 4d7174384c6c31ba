import pyarrow as pa

from mergelib.benchmarks.language import LanguageCheck
from mergelib.remarks import remarks
from mergelib.tables import RESPONSE_SCHEMA

SAID = {
    "m": ["answered in en, not ja", "too short to tell its language", None, "scorer s: E: no"],
    "n": [None, "too short to tell its language", "too short to tell its language", None],
}


def _responses() -> pa.Table:
    rows = [
        {
            "model": model,
            "benchmark": benchmark,
            "item_id": str(number),
            "value": None if reason and reason.startswith("scorer") else 1.0,
            "reason": reason,
        }
        for benchmark in ("b", "other")
        for model, reasons in SAID.items()
        for number, reason in enumerate(reasons)
    ]
    return pa.Table.from_pylist(rows, schema=RESPONSE_SCHEMA)


def test_counts_are_told_for_each_model_that_has_any() -> None:
    models = {"n": "base", "m": "winner"}
    assert remarks(_responses(), "b", models, LanguageCheck("ja", 0.99)) == [
        "In another language than ja, and so wrong: winner 1 of 4.",
        "Too short to tell the language, and left as scored: base 2 of 4, winner 1 of 4.",
        "Not scored, and left out of the score: winner 1 of 4; mostly: scorer s: E: no.",
    ]


def test_where_nothing_is_to_be_told_nothing_is() -> None:
    assert remarks(_responses(), "b", {"n": "base"}, None) == []
    (wrong, _) = remarks(_responses(), "b", {"n": "base"}, LanguageCheck("ja", 0.99))
    assert wrong == "In another language than ja, and so wrong: none."
