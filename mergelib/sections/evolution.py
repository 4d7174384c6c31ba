"""The section `evolution` of a search file: how recipes are varied, and until when."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.sections.fields import OneOf, Section

AlgorithmName = Annotated[str, OneOf("an algorithm", ALGORITHMS.keys)]


class Stop(Section):
    """What ends a search before its last generation; all may be raised later to extend it."""

    plateau: int | None = Field(
        None, ge=1, description="Generations in a row in which the best did not get better"
    )
    hours: float | None = Field(
        None, gt=0, description="Hours that merging and answering took, the end not included"
    )
    answers: int | None = Field(
        None, ge=1, description="Items answered, calibration included, the end not"
    )
    target: float | None = Field(
        None,
        gt=0,
        le=1,
        description="The best estimate, as a share of the items; of a front, its hypervolume",
    )
    failures: int | None = Field(
        10,
        ge=1,
        description="Merges that fail one after the other: the search then stops with an error",
    )


OTHERWISE = {"population": 12, "generations": 8}
"""The defaults of every algorithm but `bayesian`, which is better the oftener it is told."""


class Evolution(Section):
    """How recipes are varied."""

    algorithm: AlgorithmName = Field(
        "bayesian",
        description="bayesian is a good start; for a front of several objectives nsga2 or another "
        "that can",
    )
    population: int = Field(
        4, ge=2, description="Candidates in a generation; by default 12 if not by bayesian"
    )
    generations: int = Field(
        16,
        ge=1,
        description="May be raised later to extend a finished search; by default 8 if not by "
        "bayesian",
    )
    ahead: int = Field(
        0,
        ge=0,
        le=16,
        description="Generations that are asked before the ones before them have been told, so "
        "that no worker waits for a generation's end",
    )
    descriptors: Literal["auto", "scores", "parents"] = Field(
        "auto",
        description="What map_elites tells models apart by: the scores on the first two "
        "benchmarks, or the distances to the first two endpoints; scores if there are two",
    )
    stop: Stop = Field(Stop(), description="What ends the search before its last generation")

    @model_validator(mode="after")
    def _can_be_asked_ahead(self) -> Self:
        if self.ahead and not ALGORITHMS[self.algorithm].asynchronous:
            able = ", ".join(name for name, one in ALGORITHMS.items() if one.asynchronous)
            raise ValueError(
                f"evolution.ahead: {self.algorithm} must be told of a generation before it is "
                f"asked for the next; give ahead: 0, or one of the algorithms {able}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_algorithm(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("algorithm", "bayesian") != "bayesian":
            return {**OTHERWISE, **given}
        return given
