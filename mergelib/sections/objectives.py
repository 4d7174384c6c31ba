"""The sections `objectives` and `constraints` of a search file: benchmarks, and what is asked."""

from typing import Self

from pydantic import Field, model_validator

from mergelib.sections.fields import Section
from mergelib.sections.plain_file import BenchmarkSource, PlainFile

_THRESHOLD = 0.99


class BenchmarkChoice(Section):
    """A benchmark, how it is asked and scored, and which of its items may be used for what."""

    benchmark: BenchmarkSource = Field(
        description="An lm-eval task or group: a YAML file, or a name; or a plain file of "
        "questions and answers"
    )
    name: str | None = Field(None, min_length=1, description="What reports call it")
    metric: str | None = Field(None, description="One of the task's metrics; its first by default")
    filter: str | None = Field(None, description="One of the task's filters; its first by default")
    scorer: str | None = Field(
        None,
        pattern=r"^.+:[A-Za-z_]\w*$",
        description="module:function, a Python file beside the search file and a function in it "
        "that scores an answer from 0 to 1, in place of a metric",
    )
    language: str | None = Field(
        None, description="An answer in another language is wrong; such as ja or de"
    )
    language_threshold: float = Field(
        _THRESHOLD,
        gt=0.5,
        le=1,
        description="How sure the detector must be that an answer is in another language",
    )
    chat_template: bool = Field(
        False, description="Put prompts into the first model's chat template"
    )
    system_prompt: str | None = Field(None, description="Stands before everything else")
    multiturn: bool = Field(
        True, description="In a chat template, few-shot examples are turns of their own"
    )
    search_items: int | None = Field(
        None, ge=2, description="At most so many items for the search; all by default"
    )
    fresh_items: int | None = Field(
        None, ge=2, description="At most so many items, unseen by the search, for the final scores"
    )

    @property
    def reference(self) -> str:
        """The task's or file's name, for messages."""
        return self.benchmark if isinstance(self.benchmark, str) else self.benchmark.file

    @property
    def measured_by(self) -> tuple[object, ...]:
        """What tells two objectives on one benchmark apart."""
        return (self.benchmark, self.metric, self.filter, self.scorer, self.language)

    @model_validator(mode="after")
    def _scored_in_one_way(self) -> Self:
        if self.scorer is not None and self.metric is not None:
            raise ValueError("give either scorer or metric")
        if self.language is None and self.language_threshold != _THRESHOLD:
            raise ValueError("language_threshold: goes with language; give that, or leave it out")
        if not self.chat_template and not self.multiturn:
            raise ValueError("multiturn: goes with chat_template: true")
        if isinstance(self.benchmark, PlainFile) and self.filter is not None:
            raise ValueError("filter: a plain file has extraction instead")
        return self


class Objective(BenchmarkChoice):
    """A benchmark to do well on."""

    weight: float | None = Field(
        None,
        gt=0,
        description="Of several objectives: the weighted mean is maximised, and one model comes "
        "out; without weights a front does",
    )


class Constraint(BenchmarkChoice):
    """A benchmark on which a merge must not be worse than a limit."""

    at_least: float | None = Field(None, gt=0, le=1, description="The lowest share of items right")
    below_base: float | None = Field(
        None, ge=0, lt=1, description="How far below the base model's score it may be, as a share"
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.at_least is None) == (self.below_base is None):
            raise ValueError("give either at_least or below_base")
        return self
