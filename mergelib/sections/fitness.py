"""The section `fitness` of a search file: how a candidate is judged."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from mergelib.estimators import ESTIMATORS
from mergelib.irt.selection import SELECTIONS
from mergelib.sections.fields import OneOf, Section

EstimatorName = Annotated[str, OneOf("an estimator", ESTIMATORS.keys)]
SelectionName = Annotated[str, OneOf("a way to select items", SELECTIONS.keys)]


class Calibration(Section):
    """Where the responses that calibrate the item bank come from."""

    source: str = Field(
        "self",
        min_length=1,
        description="self: random merges answer a share of the items; or a Parquet or CSV file of "
        "other models' responses, such as an earlier run's responses.parquet",
    )
    models: int = Field(12, ge=0, le=1000, description="How many random merges answer")
    share: float = Field(0.15, gt=0, le=1, description="The share of the items that each answers")
    overlap: float = Field(
        0.0, ge=0, le=1, description="How much of that share is the same items for all merges"
    )
    dimensions: Literal["auto"] | Annotated[int, Field(ge=1, le=5)] = Field(
        1,
        description="Abilities in the item response model; auto: as many as estimate accuracy best",
    )

    @model_validator(mode="after")
    def _enough_models(self) -> Self:
        if self.source == "self" and self.dimensions not in ("auto", 1):
            least = int(self.dimensions) + 1
            if self.models < least:
                raise ValueError(
                    f"fitness.calibration.dimensions: {self.dimensions} abilities from "
                    f"{self.models} random merges; give models: {least} or more, or dimensions: 1"
                )
        return self


class Racing(Section):
    """Successive halving: all candidates of a generation start on few of the anchor items."""

    rungs: int = Field(3, ge=2, le=6, description="Into how many steps the items are divided")
    keep: float = Field(
        0.5, gt=0, lt=1, description="The share of the candidates that goes on to the next step"
    )


def _yes_or_how(value: Any) -> str | None:
    if isinstance(value, bool):
        return "<bool>"
    return "<race>" if isinstance(value, Racing | dict) else None


RacingOrNot = Annotated[
    Annotated[bool, Tag("<bool>")] | Annotated[Racing, Tag("<race>")],
    Discriminator(
        _yes_or_how,
        custom_error_type="racing",
        custom_error_message="must be true, false, or a mapping {rungs: ..., keep: ...}",
    ),
]


class Fitness(Section):
    """How a candidate is judged: which items it answers, and what they say of all items."""

    estimator: EstimatorName = Field(
        "parent_irt", description="What the anchor items are taken to say of all items"
    )
    items: int = Field(30, ge=1, description="Anchor items that each candidate answers")
    selection: SelectionName = Field(
        "systematic", description="How the anchor items are chosen from the benchmark"
    )
    calibration: Calibration = Field(
        Calibration(), description="What the item response model is calibrated on"
    )
    renew: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description="After how many generations other anchor items are asked, 0 for never; auto: "
        "after each one, by an algorithm that smooths, in a race and in a search of 200 "
        "candidates and more",
    )
    racing: RacingOrNot = Field(
        False,
        description="true: only the better half of a generation goes on to further items; or "
        "{rungs, keep}",
    )

    @property
    def race(self) -> Racing | None:
        """How candidates race; None where all are asked all anchor items."""
        if isinstance(self.racing, Racing):
            return self.racing
        return Racing() if self.racing else None
