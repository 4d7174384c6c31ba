"""A benchmark that is a plain file of questions and answers, in `benchmark` of a search file."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from mergelib.sections.fields import Section

Extraction = Literal["exact", "last_number", "regex", "choice"]
AnswerAs = Literal["auto", "text", "letter", "index", "position"]

PROMPT = "Question: {{question}}\nAnswer:"
PROMPT_WITH_OPTIONS = "Question: {{question}}\n{{options}}\nAnswer:"

Column = Annotated[
    Annotated[str, Field(min_length=1), Tag("<name>")]
    | Annotated[int, Field(ge=1), Tag("<number>")],
    Discriminator(
        lambda value: "<number>" if isinstance(value, int) else "<name>",
        custom_error_type="column",
        custom_error_message="must be a column's name, or in a file without a header its number",
    ),
]

Columns = Annotated[
    Annotated[Column, Tag("<one>")]
    | Annotated[tuple[Column, ...], Field(min_length=2), Tag("<several>")],
    Discriminator(lambda value: "<several>" if isinstance(value, list | tuple) else "<one>"),
]


class PlainFile(Section):
    """A Parquet, JSONL, CSV or TSV file whose rows are items."""

    file: str = Field(description="Ends in .parquet, .jsonl, .csv or .tsv")
    question: Column = Field(
        description="The column that is asked: its name, or its number from 1 on in a CSV or TSV "
        "file without a header"
    )
    answer: Column = Field(description="The column of right answers")
    fresh: str | None = Field(
        None, description="Another file for the final scores; half of the rows by default"
    )
    choices: Columns | None = Field(
        None, description="Multiple choice: a column of lists, or a column for each choice"
    )
    labels: tuple[str, ...] | None = Field(
        None, min_length=2, description="Multiple choice with the same choices for every question"
    )
    answer_as: AnswerAs = Field(
        "auto",
        description="How an answer names its choice: its text, its letter, its index from 0 or its "
        "position from 1",
    )
    prompt: str | None = Field(
        None,
        description="Jinja over the row's columns, and question, choices and options (one a line, "
        "lettered)",
    )
    shots: int = Field(0, ge=0, description="So many rows with answers stand before the question")
    examples: str | None = Field(
        None, description="The file that they are drawn from; the same one by default"
    )
    stop: tuple[str, ...] = Field(("\n\n",), description="Texts that end an answer")
    max_tokens: int = Field(256, ge=1, description="The longest answer")
    extraction: Extraction | None = Field(
        None,
        description="What of an answer counts: all of it (exact), its last number, what a pattern "
        "matches first, or the choice that it names; with choices and without this, the likeliest "
        "choice is the answer",
    )
    pattern: str | None = Field(None, description="For extraction: regex; its first group, if any")
    decimal: Literal[".", ","] = Field(
        ".", description="For extraction: last_number; what stands before decimals"
    )

    @property
    def multiple_choice(self) -> bool:
        """Whether each question has choices."""
        return self.choices is not None or self.labels is not None

    @property
    def written(self) -> bool:
        """Whether the model writes its answer, and does not only weigh choices."""
        return not self.multiple_choice or self.extraction is not None

    @property
    def columns(self) -> tuple[str | int, ...]:
        """All columns that are named."""
        choices = () if self.choices is None else self.choices
        return (
            self.question,
            self.answer,
            *(choices if isinstance(choices, tuple) else (choices,)),
        )

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.choices is not None and self.labels is not None:
            raise ValueError("give either choices or labels")
        if self.extraction and self.multiple_choice != (self.extraction == "choice"):
            allowed = "choice" if self.multiple_choice else "exact, last_number, regex"
            raise ValueError(
                f"extraction: {self.extraction!r} with{'' if self.multiple_choice else 'out'} "
                f"choices; allowed: {allowed}"
            )
        changed = {
            name
            for name in ("answer_as", "stop", "max_tokens", "decimal")
            if getattr(self, name) != type(self).model_fields[name].default
        }
        unused = {
            "answer_as": not self.multiple_choice,
            "decimal": self.extraction != "last_number",
        }
        unused |= dict.fromkeys(("stop", "max_tokens"), not self.written)
        for name in sorted(changed):
            if unused[name]:
                raise ValueError(f"{name}: has no effect with the other keys; leave it out")
        if (self.pattern is not None) != (self.extraction == "regex"):
            raise ValueError("pattern: goes with extraction: regex, and that with it")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(
                f"pattern: {self.pattern!r} is no regular expression: {error}"
            ) from None
        if self.examples is not None and not self.shots:
            raise ValueError("examples: without shots none is shown; give shots")
        kinds = {type(column) for column in self.columns}
        if len(kinds) > 1:
            raise ValueError(
                "question, answer and choices: give names for all of them, or numbers for all"
            )
        return self


def _task_or_file(value: Any) -> str | None:
    if isinstance(value, str):
        return "<task>"
    return "<file>" if isinstance(value, dict | PlainFile) else None


BenchmarkSource = Annotated[
    Annotated[str, Field(min_length=1), Tag("<task>")] | Annotated[PlainFile, Tag("<file>")],
    Discriminator(
        _task_or_file,
        custom_error_type="benchmark",
        custom_error_message="must be a task's name or file, or {file: ..., question: ...}",
    ),
]
"""An lm-eval task, or a plain file."""
