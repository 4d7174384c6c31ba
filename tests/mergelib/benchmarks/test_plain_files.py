"""Benchmarks from plain files: every format, few-shot examples, extraction, choices, bad input."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from pydantic import ValidationError

from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.items import Benchmark, open_benchmark
from mergelib.benchmarks.scoring import score
from mergelib.errors import InputError
from mergelib.merging.resident import ResidentModel
from mergelib.sections.objectives import Objective

SUMS = Path(__file__).parent / "files" / "sums_ja.tsv"
MGSM = Path(__file__).resolve().parents[4] / "shared" / "benchmarks" / "mgsm_ja.tsv"
NUMBERED = {"question": 1, "answer": 2, "extraction": "last_number"}
NAMED = {"question": "question", "answer": "answer"}


def opened(benchmark: dict[str, Any], seed: int = 0, **further: Any) -> Benchmark:
    objective = Objective.model_validate({"benchmark": benchmark, **further})
    return open_benchmark(objective, "objectives.0", seed)


def refused(benchmark: dict[str, Any], **further: Any) -> str:
    with pytest.raises(InputError) as caught:
        opened(benchmark, **further)
    (line,) = str(caught.value).splitlines()
    return line


def rows(count: int = 12) -> list[dict[str, Any]]:
    return [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(count)]


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        tabs = (
            {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
            if path.suffix == ".tsv"
            else {}
        )
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]), **tabs)
            writer.writeheader()
            writer.writerows(content)
    return path


def answered(benchmark: Benchmark, answers: list[str]) -> list[int | None]:
    items = list(benchmark.items[: len(answers)])
    return [r.response for r in score(benchmark, items, [[[answer]] for answer in answers])]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ".tsv"])
def test_every_format_gives_the_same_items(tmp_path: Path, suffix: str) -> None:
    content = [{**row, "question": row["question"] + ' "so, yes"'} for row in rows()]
    benchmark = opened({"file": str(write(tmp_path / f"sums{suffix}", content)), **NAMED})
    assert benchmark.name == "sums"
    assert (benchmark.metric, benchmark.filter, benchmark.graded) == ("exact_match", "exact", False)
    assert (len(benchmark.pool("search")), len(benchmark.pool("fresh"))) == (6, 6)
    by_id = {item.item_id: item for item in benchmark.items}
    assert by_id["rows/3"].prompt == 'Question: What is 3 + 3? "so, yes"\nAnswer:'
    assert by_id["rows/3"].target == "6"
    assert answered(benchmark, [f" {benchmark.items[0].target}\n", "no"]) == [1, 0]


def test_numbers_of_a_typed_column_are_written_as_whole_numbers(tmp_path: Path) -> None:
    content = [{"question": n, "answer": float(n)} for n in range(8)]
    content[3]["answer"] = None
    benchmark = opened({"file": str(write(tmp_path / "n.parquet", content)), **NAMED})
    assert {item.target for item in benchmark.items} == {"0", "1", "2", "4", "5", "6", "7"}
    (note,) = benchmark.notes
    assert note.endswith("n.parquet: 1 row is left out: no answer (row 4)")


def test_a_file_without_a_header_has_columns_by_number() -> None:
    benchmark = opened({"file": str(SUMS), **NUMBERED}, language="ja")
    assert len(benchmark.items) == 12
    targets = {item.target for item in benchmark.items}
    assert targets == {"9", "3500", "-3", "1000", "40000", "1.25", "180", "4", "22", "14", "5"}
    by_target = {item.target: item for item in benchmark.items}
    items = [by_target[t] for t in ("3500", "-3", "4", "40000", "9", "22", "14")]
    answers = [
        "1,200 + 2,300 = ￥3,500です。",
        "5-8=-3",
        "答えは４人です",
        "答えは4万円です。",
        "The answer to this question is 9.",
        "答えは23人です",
        "答えは十四です",
    ]
    responses = score(benchmark, items, [[[answer]] for answer in answers])
    assert [r.response for r in responses] == [1, 1, 1, 1, 0, 0, 0]
    assert responses[0].reason is None
    assert responses[1].reason == "too short to tell its language"
    assert responses[4].reason == "answered in en, not ja"


def test_mgsm_in_japanese() -> None:
    if not MGSM.is_file():
        pytest.skip(f"{MGSM} is not there")
    few_shot = {"shots": 8, "prompt": "問題: {{question}}\n答え:", "stop": ["\n\n", "問題"]}
    benchmark = opened({"file": str(MGSM), **NUMBERED, **few_shot}, language="ja")
    assert (len(benchmark.pool("search")), len(benchmark.pool("fresh"))) == (117, 125)
    assert all(item.target.isdecimal() for item in benchmark.items)
    for item in benchmark.items:
        prefix, asked = item.prompt.rsplit("問題: ", 1)
        assert prefix.count("問題: ") == 8
        assert asked == f"{item.doc['question']}\n答え:"
        assert item.doc["question"] not in prefix
    right = [f"計算すると{int(item.target):,}です。" for item in benchmark.items]
    responses = score(benchmark, list(benchmark.items), [[[answer]] for answer in right])
    assert {r.response for r in responses} == {1}


@pytest.mark.parametrize("own_file", [True, False])
def test_examples_come_from_the_seed_and_are_never_asked(tmp_path: Path, own_file: bool) -> None:
    # The sixth question stands twice: neither may be asked where it is an example.
    content = [*rows(20), rows(20)[5]]
    file = {"file": str(write(tmp_path / "sums.jsonl", content)), **NAMED, "shots": 3}
    if not own_file:
        # Half of the other file's rows are asked in this one.
        others = rows(40)[10:]
        file["examples"] = str(write(tmp_path / "examples.jsonl", others))
    shown = {}
    for seed in range(6):
        benchmark = opened(file, seed)
        prefixes = {item.prompt[: item.prompt.rindex("Question:")] for item in benchmark.items}
        (shown[seed],) = prefixes
        assert shown[seed].count("Answer: ") == 3
        assert not any(item.doc["question"] in shown[seed] for item in benchmark.items)
        again = opened(file, seed)
        assert [i.digest for i in again.items] == [i.digest for i in benchmark.items]
    assert len(set(shown.values())) > 3


def test_a_question_that_is_part_of_another_is_still_asked(tmp_path: Path) -> None:
    content = [{"question": "1" * n, "answer": n} for n in range(1, 31)]
    file = {"file": str(write(tmp_path / "ones.csv", content)), **NAMED, "prompt": "{{question}}"}
    assert len(opened({**file, "shots": 4}).items) == 26


def test_the_pools_of_a_file_do_not_depend_on_the_shots(tmp_path: Path) -> None:
    file = {"file": str(write(tmp_path / "sums.csv", rows(20))), **NAMED}
    fresh = [
        {item.item_id for item in opened({**file, "shots": shots}, seed=3).pool("fresh")}
        for shots in (0, 4)
    ]
    assert fresh[0] == fresh[1]


def test_a_second_file_is_the_fresh_pool(tmp_path: Path) -> None:
    first = write(tmp_path / "dev.csv", rows(10))
    second = write(tmp_path / "test.csv", rows(30)[8:])
    benchmark = opened({"file": str(first), "fresh": str(second), **NAMED})
    assert len(benchmark.pool("search")) == 10
    # Two of its rows are in the first file too.
    assert len(benchmark.pool("fresh")) == 20
    assert {item.item_id.split("/")[0] for item in benchmark.pool("fresh")} == {"fresh"}


def test_a_pattern_finds_the_answer_in_texts_and_targets(tmp_path: Path) -> None:
    content = [{"question": f"q{n}", "answer": f"so #### {n}"} for n in range(6)]
    file = str(write(tmp_path / "worked.jsonl", content))
    benchmark = opened({"file": file, **NAMED, "extraction": "regex", "pattern": r"#### (\d+)"})
    target = benchmark.items[0].target
    assert target == benchmark.items[0].question.split("q")[1].split("\n")[0]
    assert answered(benchmark, [f"1+1 #### {target} ok #### 99", target]) == [1, 0]


CHOICES = [
    {"question": f"q{n}", "a": f"one {n}", "b": f"two {n}", "c": f"three {n}", "gold": n % 3}
    for n in range(9)
]
COLUMNS = {"question": "question", "answer": "gold", "choices": ["a", "b", "c"]}


def test_choices_are_weighed(tmp_path: Path) -> None:
    file = {"file": str(write(tmp_path / "mc.csv", CHOICES)), **COLUMNS}
    benchmark = opened(file)
    item = next(i for i in benchmark.items if i.item_id == "rows/4")
    assert item.choices == [" one 4", " two 4", " three 4"]
    assert item.target == "two 4"
    assert benchmark.metric == "acc"
    assert opened(file, metric="acc_norm").metric == "acc_norm"
    raw = [[[(-3.0, False)], [(-1.0, False)], [(-2.0, False)]]]
    assert [r.response for r in score(benchmark, [item], raw)] == [1]


def test_a_choice_is_named_in_writing(tmp_path: Path) -> None:
    listed = [
        {"question": r["question"], "options": [r["a"], r["b"], r["c"]], "gold": r["gold"]}
        for r in CHOICES
    ]
    file = {"question": "question", "answer": "gold", "choices": "options", "extraction": "choice"}
    path = str(write(tmp_path / "mc.parquet", listed))
    benchmark = opened({"file": path, **file, "shots": 1})
    item = benchmark.items[0]
    assert "\nA. one" in item.prompt
    assert item.prompt.count("Question:") == 2
    letter = "ABC"[int(item.item_id.split("/")[1]) % 3]
    assert item.target == letter
    answers = [f" {letter}", f"({letter}) because", "I do not know"]
    raw = [[[answer]] for answer in answers]
    assert [r.response for r in score(benchmark, [item] * 3, raw)] == [1, 1, 0]


def test_labels_are_the_choices_of_every_question(tmp_path: Path) -> None:
    content = [{"q": f"text {n}", "mood": ["good", "bad"][n % 2]} for n in range(8)]
    file = {"file": str(write(tmp_path / "moods.tsv", content)), "question": "q", "answer": "mood"}
    benchmark = opened({**file, "labels": ["good", "bad"]})
    assert {tuple(item.choices or ()) for item in benchmark.items} == {(" good", " bad")}
    assert {item.target for item in benchmark.items} == {"good", "bad"}


def test_answers_that_can_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    content = [{"q": f"{n}", "a": "2", "b": "1", "c": "0", "gold": n % 2 + 1} for n in range(8)]
    columns = {"question": "q", "answer": "gold", "choices": ["a", "b", "c"]}
    file = {"file": str(write(tmp_path / "digits.csv", content)), **columns}
    line = refused(file)
    assert "objectives.0.benchmark.answer_as: answers can be read as text or as index or" in line
    targets = {
        way: opened({**file, "answer_as": way}).items[0].target
        for way in ("text", "index", "position")
    }
    assert len(set(targets.values())) > 1
    content[0]["gold"] = 7
    file = {"file": str(write(tmp_path / "digits.csv", content)), **columns}
    assert "'7' is none of ['2', '1', '0']" in refused(file)


def test_the_items_are_scored_as_lm_eval_scores_them(
    open_model: Callable[..., ResidentModel], tmp_path: Path
) -> None:
    resident = open_model("llama")
    words = ["red", "blue", "green", "big", "small", "old", "new", "cat", "dog", "bird", "house"]
    content = [
        {"question": f"the {a} {b}", "answer": b[0], "x": a, "y": b, "gold": n % 2}
        for n, (a, b) in enumerate(zip(words, words[1:] + words[:1], strict=True))
    ]
    path = str(write(tmp_path / "words.jsonl", content))
    written = {**NAMED, "shots": 2, "extraction": "regex", "pattern": "([a-z])", "max_tokens": 8}
    weighed = {"question": "question", "answer": "gold", "choices": ["x", "y"], "shots": 2}
    for columns in (written, weighed):
        benchmark = opened({"file": path, **columns})
        model = HFLM(pretrained=resident.model, tokenizer=resident.tokenizer, batch_size=4)
        numbers = [int(item.item_id.split("/")[1]) for item in benchmark.items]
        results = simple_evaluate(
            model=model,
            tasks=[benchmark.task],
            task_manager=TaskManager(include_defaults=False),
            samples={"words": numbers},
            bootstrap_iters=0,
        )
        theirs = {
            sample["doc"]["question"]: sample[benchmark.metric]
            for sample in results["samples"]["words"]
        }
        items = list(benchmark.items)
        raw, _ = Answerer(resident, "auto").answer(items)
        for item, response in zip(items, score(benchmark, items, raw), strict=True):
            assert response.response == theirs[item.doc["question"]]


@pytest.mark.parametrize(
    ("name", "text", "columns", "said"),
    [
        ("gone.csv", None, NAMED, "gone.csv: no such file"),
        ("data.xlsx", "", NAMED, "ends in '.xlsx'; allowed: .csv, .jsonl, .parquet, .tsv"),
        ("empty.csv", "", NAMED, "empty.csv: is empty"),
        ("header.csv", "question,answer\n", NAMED, "header.csv: is empty"),
        ("empty.jsonl", "\n", NAMED, "empty.jsonl: is empty"),
        ("c.csv", "question,anwser\n1,2\n", NAMED, "'answer' is not a column; did you mean 'anw"),
        ("c.csv", "question,answer\n1,2,3\n", NAMED, "row 1 has 3 columns and the first line 2"),
        ("c.csv", "question,question\n1,2\n", NAMED, "two columns are called 'question'"),
        ("c.csv", 'question,answer\n"1,2\n', NAMED, "cannot be read: unexpected end of data"),
        ("c.tsv", "1\t2\n", NUMBERED | {"answer": 3}, "c.tsv: column 3, but it has 2"),
        ("c.tsv", "1\t2\n3\t4\n", NAMED, "without a header, give columns by number"),
        ("c.jsonl", '{"question": 1}\nno\n', NAMED, "line 2 is not JSON"),
        ("c.jsonl", "[1]\n", NAMED, "line 1 is no JSON object"),
        ("c.jsonl", '{"1": 1}\n', NUMBERED, "its columns have names; give them in place of"),
        ("c.parquet", "no", NAMED, "c.parquet: cannot be read: "),
        ("c.csv", "question,answer\n1,\n", NAMED, "no row can be asked: no answer in row 1"),
        ("c.csv", "question,answer\n1,2\n", NAMED, "leaves 0 items for the search pool"),
        (
            "c.csv",
            "question,answer\n1,x\n",
            {**NAMED, "extraction": "last_number"},
            "no row can be asked: no number in the answer in row 1",
        ),
        (
            "c.csv",
            "question,answer\n1,2\n3,4\n5,6\n7,8\n",
            {**NAMED, "shots": 3},
            "shots: 3, but there are 2 rows to draw them from that are not asked",
        ),
        (
            "c.csv",
            "question,answer\n1,2\n",
            {**NAMED, "prompt": "{{qestion}}"},
            "prompt: 'qestion' is not a column that a prompt may show; did you mean 'question'?",
        ),
        (
            "c.csv",
            "question,answer\n1,2\n",
            {**NAMED, "prompt": "{{question}} {{answer}}"},
            "prompt: 'answer' is not a column that a prompt may show",
        ),
        ("c.csv", "question,answer\n1,2\n", {**NAMED, "prompt": "{{"}, "prompt: '{{' is not Jinja"),
        (
            "c.jsonl",
            '{"question": 1, "answer": [2]}\n',
            NAMED,
            "row 1: the answer is a list; name a column of texts or numbers",
        ),
        (
            "c.csv",
            "question,answer,o\n1,2,x\n",
            {**NAMED, "choices": "o"},
            "row 1: 'o' holds 'x' and no list; name a column for each choice",
        ),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, name: str, text: str | None, columns: dict[str, Any], said: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    line = refused({"file": str(tmp_path / name), **columns})
    assert line.startswith("objectives.0.benchmark")
    assert said in line


def test_rows_that_cannot_be_asked_are_left_out_and_named(tmp_path: Path) -> None:
    content = [dict(row) for row in CHOICES]
    content[1]["question"] = " "
    content[2]["b"] = ""
    content[5]["gold"] = ""
    path = write(tmp_path / "holes.csv", content)
    benchmark = opened({"file": str(path), **COLUMNS})
    assert len(benchmark.items) == 6
    (note,) = benchmark.notes
    assert note == (
        f"objectives.0.benchmark.file: {path}: 3 rows are left out: no question (row 2); an empty "
        "choice (row 3); no answer (row 6)"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["a", "b"], "choices": ["a", "b"]}, "give either choices or labels"),
        ({"extraction": "choice"}, "extraction: 'choice' without choices; allowed: exact"),
        ({"labels": ["a", "b"], "extraction": "exact"}, "'exact' with choices; allowed: choice"),
        ({"extraction": "regex"}, "pattern: goes with extraction: regex"),
        ({"extraction": "regex", "pattern": "("}, "pattern: '(' is no regular expression"),
        ({"decimal": ","}, "decimal: has no effect"),
        ({"labels": ["a", "b"], "max_tokens": 9}, "max_tokens: has no effect"),
        ({"answer_as": "index"}, "answer_as: has no effect"),
        ({"examples": "other.csv"}, "examples: without shots none is shown"),
        ({"question": 1}, "give names for all of them, or numbers for all"),
    ],
)
def test_keys_that_do_not_go_together(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        Objective.model_validate({"benchmark": {"file": "f.csv", **NAMED, **changes}})
