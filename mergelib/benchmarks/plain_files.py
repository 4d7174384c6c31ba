"""A plain file of questions and answers as an lm-eval task, built from a dict.

Prompts, few-shot examples, filters and metrics are lm-eval's own from here on.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

import jinja2
import numpy as np
from jinja2 import meta
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import apply_template, env

from mergelib.benchmarks.choice_answers import WAYS, way_of
from mergelib.benchmarks.file_rows import Row, read_rows
from mergelib.benchmarks.numbers import last_number
from mergelib.benchmarks.pools import shuffled
from mergelib.benchmarks.sources import Source
from mergelib.errors import InputError, unknown
from mergelib.sections.plain_file import PROMPT, PROMPT_WITH_OPTIONS, PlainFile

_ROWS, _FRESH = "rows", "fresh"
_OWN = ("question", "choices", "options")
_SHOWN = 5


class _Docs(list[dict[str, Any]]):
    """Documents as lm-eval takes them from `datasets`, without its types for each column."""

    @property
    def features(self) -> dict[str, None]:
        return dict.fromkeys(self[0])


class _Whole(NamedTuple):
    """A row that can be asked: its number from 1 on, and what of it is asked."""

    number: int
    row: Row
    question: str
    answer: str
    choices: tuple[str, ...]


def plain_task(file: PlainFile, name: str | None, key: str, seed: int) -> Source:
    """Make a task of a file.

    Rows without a question or an answer, or with an empty choice, are left out and named.

    Args:
        file: the search file's section.
        name: the benchmark's; the file's own by default.
        key: the search file's key, for error messages.
        seed: decides which rows are few-shot examples. They are the same for every question, from
            the half that the search may see, and none of them is asked.

    Raises:
        InputError: a file or column is missing, a file is empty or damaged, the prompt names what
            is not there, or answers cannot be read.
    """
    reader = _Reader(file, key)
    docs = reader.documents(file.file, f"{key}.file")
    splits = {_ROWS: docs}
    if file.fresh is not None:
        splits[_FRESH] = reader.documents(file.fresh, f"{key}.fresh")
    examples = _examples(reader, splits, key, seed) if file.shots else []
    task_name = name or Path(file.file).stem
    task = ConfigurableTask(config=_config(file, task_name, splits, examples))
    questions = {doc["question"] for doc in examples}
    shown = frozenset(
        (split, place)
        for split, docs in splits.items()
        for place, doc in enumerate(docs)
        if doc["question"] in questions
    )
    return Source(task_name, {task_name: task}, shown, reader.notes)


def _examples(
    reader: "_Reader", splits: dict[str, _Docs], key: str, seed: int
) -> list[dict[str, Any]]:
    """The few-shot examples: of the search's half of the file, or of another file."""
    file = reader.file
    pool: list[dict[str, Any]]
    if file.examples is None:
        docs = splits[_ROWS]
        order = shuffled(seed, len(docs))
        half = order if _FRESH in splits else order[: len(order) // 2]
        pool = [docs[n] for n in half]
    else:
        there = reader.documents(file.examples, f"{key}.examples")
        asked = {doc["question"] for docs in splits.values() for doc in docs}
        order = np.random.default_rng([seed, 0xE8A3]).permutation(len(there)).tolist()
        pool = [there[n] for n in order if there[n]["question"] not in asked]
    if len(pool) < file.shots:
        raise InputError(
            f"{key}.shots: {file.shots}, but there are {len(pool)} rows to draw them from that are "
            "not asked"
        )
    return pool[: file.shots]


def _config(
    file: PlainFile, name: str, splits: dict[str, _Docs], examples: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """What a task file would say."""
    config: dict[str, Any] = {
        "task": name,
        "custom_dataset": lambda **_: splits,
        "test_split": _FRESH if _FRESH in splits else _ROWS,
        "validation_split": _ROWS,
        "doc_to_text": "prompt",
        "doc_to_target": "target",
        "num_fewshot": len(examples),
        "fewshot_config": {
            "sampler": "first_n",
            "samples": list(examples),
            "doc_to_target": "shown",
        },
        "metadata": {"version": 1},
    }
    if not file.written:
        metrics = ["acc", "acc_norm"]
        config |= {"output_type": "multiple_choice", "doc_to_choice": "choices"}
    else:
        metrics = ["exact_match"]
        config |= {
            "output_type": "generate_until",
            "generation_kwargs": {
                "until": list(file.stop),
                "max_gen_toks": file.max_tokens,
                "do_sample": False,
                "temperature": 0.0,
            },
            "filter_list": [{"name": file.extraction or "exact", "filter": _filters(file)}],
        }
    config["metric_list"] = [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics
    ]
    return config


def _filters(file: PlainFile) -> list[dict[str, Any]]:
    chosen: dict[str, dict[str, Any]] = {
        "exact": {"function": "remove_whitespace"},
        "last_number": {"function": "last_number", "decimal": file.decimal},
        "regex": {"function": "regex", "regex_pattern": file.pattern},
        "choice": {"function": "named_choice"},
    }
    return [chosen[file.extraction or "exact"], {"function": "take_first"}]


class _Reader:
    """Makes documents of rows: what is asked, what is right, and the row's own columns."""

    def __init__(self, file: PlainFile, key: str) -> None:
        self.file = file
        self.notes: list[str] = []
        self._key = key
        self._prompt = file.prompt or (
            PROMPT_WITH_OPTIONS if file.extraction == "choice" else PROMPT
        )
        try:
            self._named = meta.find_undeclared_variables(env.parse(self._prompt))
        except jinja2.TemplateError as error:
            raise InputError(f"{key}.prompt: {self._prompt!r} is not Jinja: {error}") from error

    def documents(self, reference: str, key: str) -> _Docs:
        """Read a file; `notes` gets a line on the rows that are left out, if any."""
        rows = read_rows(Path(reference), self.file.columns, key)
        self._check_prompt(rows)
        whole: list[_Whole] = []
        left_out: dict[str, list[int]] = {}
        for number, row in enumerate(rows, start=1):
            found = self._whole(number, row, key)
            if isinstance(found, str):
                left_out.setdefault(found, []).append(number)
            else:
                whole.append(found)
        docs = _Docs()
        for found, place in zip(whole, self._places(whole), strict=True):
            doc = self._document(found, place)
            if isinstance(doc, str):
                left_out.setdefault(doc, []).append(found.number)
            else:
                docs.append(doc)
        if not docs:
            reason, numbers = next(iter(left_out.items()))
            raise InputError(
                f"{key}: {reference}: no row can be asked: {reason} in row {numbers[0]}"
            )
        self.notes += _told(left_out, f"{key}: {reference}")
        return docs

    def _whole(self, number: int, row: Row, key: str) -> _Whole | str:
        """A row's question, answer and choices; or what it lacks."""
        file = self.file
        asked = {what: row.get(getattr(file, what)) for what in ("question", "answer")}
        for what, value in asked.items():
            if isinstance(value, list | dict | bytes):
                raise InputError(
                    f"{key}: row {number}: the {what} is a {type(value).__name__}; name a column "
                    "of texts or numbers"
                )
        question, answer = _text(asked["question"]), _text(asked["answer"])
        if question is None or answer is None:
            return f"no {'question' if question is None else 'answer'}"
        choices: list[str | None] = list(file.labels or ())
        if isinstance(file.choices, tuple):
            choices = [_text(row.get(column)) for column in file.choices]
        elif file.choices is not None:
            value = row.get(file.choices)
            if value is not None and not isinstance(value, list):
                raise InputError(
                    f"{key}: row {number}: {file.choices!r} holds {value!r} and no list; name a "
                    "column for each choice"
                )
            choices = [_text(choice) for choice in value or ()]
        if file.multiple_choice and not 2 <= len(choices) <= len(ascii_uppercase):
            return f"{len(choices)} choices"
        if None in choices:
            return "an empty choice"
        return _Whole(number, row, question, answer, tuple(c for c in choices if c is not None))

    def _places(self, whole: Sequence[_Whole]) -> list[int | None]:
        """For multiple choice, which choice is right; None where the answer is none of them."""
        if not self.file.multiple_choice:
            return [None] * len(whole)
        way: str = self.file.answer_as
        if way == "auto":
            way = way_of(((w.answer, w.choices) for w in whole), f"{self._key}.answer_as")
        return [WAYS[way](w.answer, w.choices) for w in whole]

    def _document(self, whole: _Whole, place: int | None) -> dict[str, Any] | str:
        file = self.file
        letters = ascii_uppercase[: len(whole.choices)]
        own = {
            "question": whole.question,
            "choices": list(whole.choices),
            "options": "\n".join(map(". ".join, zip(letters, whole.choices, strict=True))),
        }
        target: str | int | None
        shown = whole.answer
        if file.multiple_choice:
            if place is None:
                return "an answer that is none of its choices"
            shown = letters[place] if file.written else whole.choices[place]
            target = letters[place] if file.written else place
        elif file.extraction == "last_number":
            target = last_number(whole.answer, file.decimal)
            if target is None:
                return "no number in the answer"
        elif file.extraction == "regex":
            found = re.search(str(file.pattern), whole.answer)
            target = (found[1] if found.re.groups else found[0]) if found else whole.answer
        else:
            target = whole.answer
        named = {str(name): value for name, value in whole.row.items()}
        try:
            prompt = apply_template(self._prompt, {**named, **own})
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"{self._key}.prompt: row {whole.number}: {error}") from error
        return {**named, **own, "prompt": prompt, "shown": shown, "target": target}

    def _check_prompt(self, rows: Sequence[Row]) -> None:
        columns = {name for row in rows for name in row if isinstance(name, str)}
        allowed = (columns | set(_OWN)) - ({str(self.file.answer)} - set(_OWN))
        for name in sorted(self._named - allowed):
            kind = "a column that a prompt may show"
            raise InputError(f"{self._key}.prompt: {unknown(kind, name, allowed)}")


def _text(value: Any) -> str | None:
    """A field as text; None for null, NaN and white space."""
    if isinstance(value, float):
        if np.isnan(value):
            return None
        if value.is_integer():  # as pandas writes whole numbers beside nulls
            value = int(value)
    text = "" if value is None else str(value).strip()
    return text or None


def _told(left_out: dict[str, list[int]], where: str) -> list[str]:
    """One line on the rows that are left out."""
    parts = []
    for reason, numbers in left_out.items():
        listed = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
        parts.append(f"{reason} (row{'s' if len(numbers) > 1 else ''} {listed})")
    count = sum(map(len, left_out.values()))
    rows = "1 row is" if count == 1 else f"{count} rows are"
    return [f"{where}: {rows} left out: {'; '.join(parts)}"] if parts else []
