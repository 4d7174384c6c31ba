"""Models on whole benchmarks: the flow, what it writes, and what it does not do twice."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch

from flows.compare import compare
from mergelib.comparing import Contest, Part, open_contest
from mergelib.errors import InputError
from mergelib.evaluation import Evaluation
from mergelib.intervals import paired_difference, wilson
from mergelib.runs import Run
from mergelib.sections.comparison import Comparison, parse_comparison
from tasks.caching import ANSWER_VERSION
from tasks.comparing import answer_part
from tests.conftest import DATA
from tests.flows.test_cli import COMMAND, environment
from tests.flows.test_showing import of_server

ZOO = DATA / "zoo"


def comparison(*models: Path, **others: Any) -> Comparison:
    """Of shipped models on a few items of a benchmark, unless told otherwise."""
    few = {"benchmark": str(DATA / "benchmarks" / "zoo_ja.yaml")}
    few |= {"search_items": 40, "fresh_items": 30}
    content = {"models": [str(model) for model in models], "benchmarks": [few], **others}
    return parse_comparison(content, "test")


def states_of(label: str) -> list[str]:
    """The states of all task runs whose name begins so, the first one first."""
    by_name = {"task_runs": {"name": {"like_": label}}}
    runs = of_server("task_runs", sort="EXPECTED_START_TIME_ASC", **by_name)
    return [run["state_name"] for run in runs if run["name"].startswith(label)]


def test_scores_are_wilsons_and_differences_are_paired(store: Path) -> None:
    folder = Path(compare(comparison(ZOO / "math", ZOO / "ja"), str(store)))
    first, second = pq.read_table(folder / "comparison.parquet").to_pylist()
    assert (first["name"], second["name"]) == ("math", "ja")
    responses = pq.read_table(folder / "responses.parquet").to_pylist()
    assert len(responses) == 2 * 70
    scores = np.array(
        [[r["response"] for r in responses if r["model"] == m["model"]] for m in (first, second)],
        dtype=float,
    )
    for row, own in zip((first, second), scores, strict=True):
        interval = wilson(own.sum(), 70)
        assert [row["items"], row["not_scored"]] == [70, 0]
        assert [row["score"], row["low"], row["high"]] == pytest.approx(list(interval))
    assert [first["diff"], first["diff_low"], first["diff_high"]] == [0, 0, 0]
    gap = [second["diff"], second["diff_low"], second["diff_high"]]
    assert gap == pytest.approx(list(paired_difference(scores[1], scores[0])))
    assert gap[2] < 0


def test_another_way_to_answer_has_a_folder_of_its_own(tmp_path: Path) -> None:
    plain = comparison(ZOO / "math", ZOO / "ja")
    digests = {
        open_contest(one, tmp_path).digest
        for one in (plain, comparison(ZOO / "math", ZOO / "ja", compute={"dtype": "bfloat16"}))
    }
    assert len(digests) == 2
    assert open_contest(plain, tmp_path).digest in digests


def test_a_models_answers_are_kept_for_the_next_comparison(store: Path) -> None:
    compare(comparison(ZOO / "math", ZOO / "ja"), str(store), "one")
    compare(comparison(ZOO / "ja", ZOO / "base"), str(store), "two")
    assert states_of("ja, zoo_ja")[-1] == "Cached"
    assert states_of("base, zoo_ja")[-1] == "Completed"


def test_a_benchmark_by_another_name_has_its_answers_too(store: Path) -> None:
    few = {"benchmark": str(DATA / "benchmarks" / "zoo_ja.yaml"), "search_items": 3}
    few |= {"fresh_items": 2}
    for name in ("once", "again"):
        asked = comparison(ZOO / "ja", benchmarks=[{**few, "name": name}])
        (row,) = pq.read_table(Path(compare(asked, str(store))) / "comparison.parquet").to_pylist()
        assert (row["benchmark"], row["items"], row["not_scored"]) == (name, 5, 0)


def test_memory_that_is_taken_for_a_moment_is_asked_for_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, taken = Contest.answer, [torch.OutOfMemoryError("taken"), ConnectionError("away")]

    def answer(contest: Contest, part: Part) -> Evaluation:
        if taken:
            raise taken.pop()
        return whole(contest, part)

    monkeypatch.setattr(Contest, "answer", answer)
    monkeypatch.setattr(answer_part, "retry_delay_seconds", [0.0])
    folder = Path(compare(comparison(ZOO / "math", seed=1), str(store), "crowded"))
    (row,) = pq.read_table(folder / "comparison.parquet").to_pylist()
    assert (row["items"], row["not_scored"], taken) == (70, 0, [])


def test_interrupting_a_comparison_says_how_to_go_on(tmp_path: Path) -> None:
    benchmarks = [f"--benchmark={DATA / 'benchmarks' / name}.yaml" for name in ("zoo_ja", "zoo_de")]
    models = [str(ZOO / name) for name in ("base", "math", "ja", "de")]
    process = subprocess.Popen(
        [*COMMAND, "compare", *models, *benchmarks, "--store", str(tmp_path)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    answers = tmp_path / ".mergeflow" / "results" / ANSWER_VERSION
    while process.poll() is None and not any(answers.glob("*")):
        time.sleep(0.02)
    # Ctrl-C at a terminal reaches the server too, which must be there to the end.
    (server,) = psutil.Process(process.pid).children()
    server.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    since = time.monotonic()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; the same command goes on where it stopped"
    # Without it the command asks for it for a minute.
    assert time.monotonic() - since < 30


def test_a_run_folder_brings_its_winner_and_its_fresh_items(finished: Run, store: Path) -> None:
    of_run = parse_comparison({"models": [str(ZOO / "math"), str(finished.folder)]}, "test")
    folder = Path(compare(of_run, str(store), "winner"))
    rows = pq.read_table(folder / "comparison.parquet").to_pylist()
    assert [row["name"] for row in rows] == ["math", "small winner"]
    reported = {
        row["role"]: row["score"]
        for row in finished.table("finalists.parquet").to_pylist()
        if row["name"] != "ja"
    }
    assert [row["score"] for row in rows] == [reported["endpoint"], reported["winner"]]
    (artifact,) = of_server("artifacts", artifacts={"key": {"any_": ["winner-comparison"]}})
    assert json.loads(artifact["data"])[1]["model"] == "small winner"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"models": []}, "models: at least 1 entry needed"),
        ({"models": [str(ZOO / "math")]}, "benchmarks: name at least one"),
        ({"models": ["no/such/model"], "benchmarks": [{"benchmark": "x"}]}, "models.0: "),
        ({"models": [str(ZOO / "math")], "pools": "all"}, "'pools' is not a key here"),
    ],
)
def test_a_fault_is_one_line_and_writes_nothing(
    content: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        compare.fn(parse_comparison(content, "compare"), str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_searchs_folder_is_not_written_to(finished: Run) -> None:
    asked = comparison(ZOO / "math")
    with pytest.raises(InputError, match="give the comparison another name"):
        compare.fn(asked, str(finished.folder.parent), finished.folder.name)
