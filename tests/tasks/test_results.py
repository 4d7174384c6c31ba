import logging

import pytest
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import Serializer

from mergelib.errors import InputError
from mergelib.evaluation import nothing_done
from tasks import results
from tasks.results import SealedEvaluation, hold, tell_of_damage

EVALUATION = {
    **nothing_done("ok", None),
    "responses": {"zoo": [[1, 1.0, "12", None], [None, 0.5, "日本", None]]},
    "seconds_merge": 0.1 + 0.2,
}


def record(evaluation=EVALUATION):
    metadata = ResultRecordMetadata(serializer=SealedEvaluation(), storage_key="key")
    return ResultRecord(result=evaluation, metadata=metadata)


def test_an_evaluation_comes_back_to_the_bit():
    assert SealedEvaluation().loads(SealedEvaluation().dumps(EVALUATION)) == EVALUATION
    assert ResultRecord.deserialize(record().serialize()).result == EVALUATION
    assert isinstance(Serializer(type="sealed-evaluation"), SealedEvaluation)


def test_every_flipped_bit_of_a_seal_or_its_text_is_noticed():
    whole = SealedEvaluation().dumps(EVALUATION)
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            with pytest.raises(ValueError, match="checksum"):
                SealedEvaluation().loads(bytes(flipped))


@pytest.mark.parametrize(
    "other",
    [
        {k: v for k, v in EVALUATION.items() if k != "items"},
        {**EVALUATION, "items": "3"},
        {**EVALUATION, "further": 1},
        {**EVALUATION, "responses": [1]},
    ],
)
def test_what_is_no_evaluation_is_refused_in_spite_of_its_seal(other):
    with pytest.raises(ValueError, match="validation error"):
        SealedEvaluation().loads(SealedEvaluation().dumps(other))


def test_a_score_that_is_not_a_number_is_not_kept():
    with pytest.raises(ValueError, match="JSON compliant"):
        SealedEvaluation().dumps({**EVALUATION, "flops": float("nan")})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: b"", "is empty"),
        (lambda content: content[:-1], "is truncated or was altered"),
        (lambda content: content[: len(content) // 2], "is truncated or was altered"),
        (lambda content: b"{}", "is truncated or was altered"),
        (lambda content: b"\x00" * len(content), "is truncated or was altered"),
        (lambda content: content.replace(b"12", b"13"), "is truncated or was altered"),
    ],
)
def test_damage_is_told_with_the_files_name_and_mended(damage, said, tmp_path, caplog):
    file = tmp_path / "answer-0" / "key"
    hold(file, record())
    tell_of_damage(file)
    assert not caplog.records
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING):
        tell_of_damage(file)
    assert caplog.messages == [f"{file}: {said}; it is worked out again"]
    hold(file, record())
    assert file.read_bytes() == whole


def test_what_is_not_there_is_no_damage(tmp_path, caplog):
    tell_of_damage(tmp_path / "key")
    assert not caplog.records


def test_what_is_whole_is_not_written_again(tmp_path, monkeypatch):
    hold(tmp_path / "key", record())

    def full(*_args):
        raise InputError("full")

    monkeypatch.setattr(results, "write_atomically", full)
    hold(tmp_path / "key", record())
    with pytest.raises(InputError, match="full"):
        hold(tmp_path / "other", record())
