"""The section `merge` of a search file: the space of recipes that is searched."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from mergelib.errors import unknown
from mergelib.merging.methods import (
    check_parameter,
    check_together,
    ignored_parameters,
    merge_methods,
    parameter_spec,
    value_type,
)
from mergelib.sections.fields import OneOf, Section

MethodName = Annotated[str, OneOf("a merge method", merge_methods)]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "mergenetic_slerp": {
        "method": "slerp",
        "layer_groups": 5,
        "smooth": True,
        "components": ["self_attn", "mlp"],
        "parameters": {"t": {"low": 0.0, "high": 1.0}},
    },
    "mergekit_evolve": {
        "method": "ties",
        "parameters": {
            "weight": {"low": 0.0, "high": 1.0},
            "density": {"low": 0.0, "high": 1.0},
            "normalize": True,
        },
    },
}
"""Spaces of other tools: five anchors each for attention and MLP and one value for the rest, as
Mergenetic searches SLERP; a normalised weight and a density for each model, as mergekit-evolve has
them for TIES (its `layer_granularity` is `layers_per_group` here, its `filters` are `components`).
What a search file says beside the preset counts instead of it."""


class Range(Section):
    """A searched parameter: every value in [low, high] can be reached, or every step-th one."""

    low: float = Field(description="Smallest value, inclusive")
    high: float = Field(description="Largest value, inclusive")
    step: float | None = Field(
        None, gt=0, description="Only values that are whole steps above low; all by default"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"low {self.low:g} and high {self.high:g} must be finite, low below high"
            )
        if self.step is not None:
            steps = (self.high - self.low) / self.step
            if round(steps) < 1 or abs(steps - round(steps)) > 1e-9 * steps:
                raise ValueError(
                    f"step {self.step:g} does not divide the range from {self.low:g} to "
                    f"{self.high:g}"
                )
        return self


def _range_or_value(value: Any) -> str | None:
    if isinstance(value, Range | dict):
        return "<range>"
    return "<value>" if isinstance(value, bool | int | float | str) else None


ParameterValue = Annotated[
    Annotated[Range, Tag("<range>")] | Annotated[bool | int | float | str, Tag("<value>")],
    Discriminator(
        _range_or_value,
        custom_error_type="parameter_value",
        custom_error_message="must be a range {low: ..., high: ...} or a value to hold fixed",
    ),
]


def _one_or_several(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return "<several>"
    return "<one>" if isinstance(value, str) else None


MethodNames = Annotated[
    Annotated[MethodName, Tag("<one>")]
    | Annotated[tuple[MethodName, ...], Field(min_length=1), Tag("<several>")],
    Discriminator(
        _one_or_several,
        custom_error_type="method_names",
        custom_error_message="must be a merge method's name, or a list of them to choose from",
    ),
]


class Path(Section):
    """A search of data flow: which layer of which endpoint comes next (Akiba et al. 2024)."""

    length: int | None = Field(
        None, ge=1, description="How many layers the merged model has; as many as the base"
    )
    reach: int = Field(
        2, ge=0, description="How many layers before or after its own place a layer may come from"
    )
    scale: ParameterValue = Field(
        1.0, description="What a layer adds to the stream is multiplied by this; or a range"
    )

    @model_validator(mode="after")
    def _positive_scale(self) -> Self:
        lowest = self.scale.low if isinstance(self.scale, Range) else self.scale
        if isinstance(lowest, bool | str) or not (math.isfinite(lowest) and lowest > 0):
            raise ValueError(f"scale {lowest!r} must be a number above 0")
        return self


def _preset_gives_method(schema: dict[str, Any]) -> None:
    """The form and the server's check must let a preset stand for the method."""
    schema.pop("required", None)


class Merge(Section):
    """The space of recipes: the merge method and which of its parameters are searched."""

    model_config = ConfigDict(json_schema_extra=_preset_gives_method)

    preset: Literal["mergenetic_slerp", "mergekit_evolve"] | None = Field(
        None, description="Another tool's space; keys given beside it count instead of its own"
    )
    method: MethodNames = Field(
        description="Any method of the installed mergekit; of several one is chosen by a gene"
    )
    layer_groups: int = Field(
        1, ge=1, description="Sets of parameters over the depth; 1 is one set for all layers"
    )
    layers_per_group: int | None = Field(
        None, ge=1, description="Instead of layer_groups: how many layers share a set"
    )
    components: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Separate sets by tensor name, such as self_attn and mlp"
    )
    smooth: bool = Field(False, description="Interpolate between the groups over the layers")
    parameters: dict[str, ParameterValue] = Field(
        {}, description="A searched range {low, high}, or a value to hold fixed"
    )
    path: Path | None = Field(
        None, description="Search which layer comes next instead of parameters; method passthrough"
    )
    export_dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="Weights are rounded to this type before they are evaluated"
    )

    @property
    def methods(self) -> tuple[str, ...]:
        """The merge methods to choose from."""
        return (self.method,) if isinstance(self.method, str) else self.method

    def parameters_of(self, method: str) -> dict[str, Any]:
        """Those of the given parameters that a method has and reads, ranges and values."""
        known = {spec.name for spec in merge_methods()[method].parameters}
        if len(self.methods) > 1:
            known -= ignored_parameters(method)
        return {name: value for name, value in self.parameters.items() if name in known}

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, document: Any) -> Any:
        if not isinstance(document, dict) or document.get("preset") not in PRESETS:
            return document
        preset = dict(PRESETS[document["preset"]])
        if "layer_groups" in document:
            preset.pop("layers_per_group", None)
        if "layers_per_group" in document:
            preset.pop("layer_groups", None)
        return {**preset, **document}

    @model_validator(mode="after")
    def _parameters_fit_the_methods(self) -> Self:
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("merge.method: each method may be named once")
        if self.layers_per_group is not None and self.layer_groups != 1:
            raise ValueError("merge.layers_per_group: give it or layer_groups, not both")
        if self.path is not None:
            self._check_path()
            return self
        several = len(self.methods) > 1
        if not (several or self.parameters):
            raise ValueError("merge.parameters: at least 1 entry needed, 0 given")
        for name, value in self.parameters.items():
            readers = [m for m in self.methods if name in self.parameters_of(m)]
            if several and not readers:
                known = {p for m in self.methods for p in _read_by(m)}
                message = unknown(f"a parameter of {' or '.join(self.methods)}", name, known)
                raise ValueError(f"merge.parameters.{name}: {message}")
            # A single method is asked even if it has no such parameter: it names those it has.
            for method in readers or self.methods:
                for end in _ends(value):
                    check_parameter(method, name, end, searched=isinstance(value, Range))
                if value_type(parameter_spec(method, name)) is int:
                    _check_whole_step(name, value)
        for method in self.methods:
            own = self.parameters_of(method)
            check_together(method, {name: _ends(value) for name, value in own.items()})
        if not (several or any(isinstance(value, Range) for value in self.parameters.values())):
            raise ValueError(
                "merge.parameters: every parameter is held fixed, so there is nothing to search; "
                "give at least one as {low: ..., high: ...}"
            )
        return self

    def _check_path(self) -> None:
        if self.methods != ("passthrough",):
            raise ValueError(
                "merge.path: layers are put one after the other by passthrough; "
                f"merge.method is {', '.join(self.methods)}"
            )
        for key in ("parameters", "components", "layers_per_group", "smooth"):
            if getattr(self, key):
                raise ValueError(f"merge.{key}: has no meaning beside merge.path; leave it out")
        if self.layer_groups != 1:
            raise ValueError("merge.layer_groups: has no meaning beside merge.path; leave it out")


def _check_whole_step(name: str, value: Any) -> None:
    if isinstance(value, Range) and value.step is not None and value.step != int(value.step):
        raise ValueError(
            f"merge.parameters.{name}.step: {value.step:g} must be a whole number, as its values"
        )


def _ends(value: Any) -> tuple[Any, ...]:
    return (value.low, value.high) if isinstance(value, Range) else (value,)


def _read_by(method: str) -> set[str]:
    return {spec.name for spec in merge_methods()[method].parameters} - ignored_parameters(method)
