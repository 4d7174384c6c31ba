"""The sections `objectives` and `constraints` of a search file: benchmarks, and what is asked."""

from typing import Self

from pydantic import Field, model_validator

from mergelib.sections.fields import Section


class BenchmarkChoice(Section):
    """A benchmark, and which of its items may be used for what."""

    benchmark: str = Field(description="An lm-eval task: a YAML file, or a task's name")
    metric: str | None = Field(None, description="One of the task's metrics; its first by default")
    filter: str | None = Field(None, description="One of the task's filters; its first by default")
    search_items: int | None = Field(
        None, ge=2, description="At most so many items for the search; all by default"
    )
    fresh_items: int | None = Field(
        None, ge=2, description="At most so many items, unseen by the search, for the final scores"
    )


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
