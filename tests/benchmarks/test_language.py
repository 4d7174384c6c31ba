from pathlib import Path

from benchmarks.language import _check, measured, texts_of

SUMS = Path(__file__).parents[1] / "mergelib" / "benchmarks" / "files" / "sums_ja.tsv"


def test_japanese_questions_are_found_to_be_japanese() -> None:
    texts = {"ja": texts_of("ja", SUMS)}
    assert len(texts["ja"]["question"]) == 12
    assert texts["ja"]["answer"][0] == "答えは9です。"
    for wanted, outcome in (("ja", "same"), ("de", "other")):
        rows = measured("the check", wanted, _check(wanted, 0.99), texts)
        by_kind = {row["kind"]: row for row in rows}
        assert by_kind["question"][outcome] == 1
        assert by_kind["question"]["texts"] == 12
        assert by_kind["answer"]["same"] + by_kind["answer"]["too_short"] == 1 or wanted == "de"
