"""What a comparison opens, without its flow."""

from pathlib import Path
from typing import Any

import pytest

from mergelib.benchmarks.answering import texts_together
from mergelib.comparing import Contest
from mergelib.errors import InputError
from mergelib.sections.comparison import Comparison, parse_comparison


def _contest(data: Path, *benchmarks: dict[str, Any], **compute: Any) -> Contest:
    content = {"models": [str(data / "zoo" / "ja")], "benchmarks": benchmarks, "compute": compute}
    return Contest(Comparison.model_validate(content), None)


def test_two_metrics_of_a_plain_file_are_two_columns(data: Path) -> None:
    file = {"file": str(data / "benchmarks" / "items" / "zoo_ja.parquet"), "question": "prompt"}
    choice = {"benchmark": {**file, "answer": "gold", "choices": "choices"}}
    caps = {"search_items": 5, "fresh_items": 5}
    contest = _contest(data, {**choice, **caps}, {**choice, **caps, "metric": "acc_norm"})
    assert list(contest.benchmarks) == ["zoo_ja.acc", "zoo_ja.acc_norm"]
    for part in contest.parts():
        assert len(contest.answer(part)["responses"][part.benchmark]) == 10
    with pytest.raises(InputError, match="benchmarks.1.benchmark: the task zoo_ja is named twice"):
        _contest(data, choice, choice)


def test_a_chat_template_that_no_model_has_is_refused(data: Path) -> None:
    task = str(data / "benchmarks" / "zoo_ja.yaml")
    with pytest.raises(InputError, match="benchmarks.0.chat_template: no tokenizer of"):
        _contest(data, {"benchmark": task, "chat_template": True})


def test_what_a_part_is_kept_by(data: Path) -> None:
    choice = {"benchmark": str(data / "benchmarks" / "zoo_ja.yaml"), "search_items": 5}

    def digest(name: str, **compute: Any) -> str:
        contest = _contest(data, choice | {"name": name}, **compute)
        return contest.part_digest(next(contest.parts()))

    # Its answers are found by the benchmark's name.
    assert digest("ja") != digest("japanese")
    written_out = texts_together("auto")
    assert digest("ja") == digest("ja", batch=written_out)
    assert digest("ja") != digest("ja", batch=written_out + 1)


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        ({"runner": "ray"}, "compute.runner: a comparison answers in this one process; leave it"),
        (
            {"runner": "dask", "workers": 2, "cluster": "tcp://a:1"},
            "compute.runner, compute.workers, compute.cluster: a comparison answers in this one",
        ),
        (
            {"merging": "mergekit"},
            "compute.merging: a comparison has no candidates to merge; leave",
        ),
        ({"cache_gib": 1}, "compute.cache_gib: a comparison has no candidates to merge; leave"),
        (
            {"runner": "dask", "seconds_per_candidate": 9},
            "compute.runner: a comparison answers in this one process; leave it out; "
            "compute.seconds_per_candidate: a comparison has no candidates to merge; leave it out",
        ),
    ],
)
def test_what_a_comparison_would_ignore_is_refused(compute: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_comparison({"models": ["any"], "compute": compute}, "compare")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"compare: {said}")
