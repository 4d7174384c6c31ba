"""The section `evolution` of a search file: how recipes are varied, and until when."""

from typing import Annotated, Literal

from pydantic import Field

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


class Evolution(Section):
    """How recipes are varied."""

    algorithm: AlgorithmName = "cma_es"
    population: int = Field(12, ge=2, description="Candidates in a generation")
    generations: int = Field(8, ge=1, description="May be raised later to extend a finished search")
    descriptors: Literal["auto", "scores", "parents"] = Field(
        "auto",
        description="What map_elites tells models apart by: the scores on the first two "
        "benchmarks, or the distances to the first two endpoints; scores if there are two",
    )
    stop: Stop = Stop()
