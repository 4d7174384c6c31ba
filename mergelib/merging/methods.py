"""What mergekit's methods take: names, types and ranges of their parameters.

mergekit 0.1.5 ignores a parameter that it does not know and takes a density of 1.7; so recipes are
checked here before they reach it.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import (
    BasePolicy,
    MergeMethodSpec,
    ParameterScope,
    ParameterSpec,
)

from mergelib.errors import unknown

RANDOM_METHODS = frozenset({"dare_linear", "dare_ties", "della", "della_linear"})
"""Methods that drop parameters at random: their recipes' digests hold the seed."""


class Limits(NamedTuple):
    """The values that make sense: low <= value <= high."""

    low: float
    high: float


# From the methods' definitions: interpolation between two models, shares of a tensor's elements.
_LIMITS = {
    "t": Limits(0.0, 1.0),
    "density": Limits(0.0, 1.0),
    "gamma": Limits(0.0, 1.0),
    "epsilon": Limits(0.0, 0.5),
    "select_topk": Limits(0.0, 1.0),
}


@cache
def merge_methods() -> Mapping[str, MergeMethodSpec]:
    """The installed mergekit's methods by name, with their parameters and what they accept."""
    return {method.spec.name: method.spec for method in registered_methods()}


def parameter_spec(method: str, parameter: str) -> ParameterSpec:
    """One parameter of a method.

    Raises:
        ValueError: the method has no such parameter; the message names those it has.
    """
    specs = {spec.name: spec for spec in merge_methods()[method].parameters}
    if parameter not in specs:
        raise ValueError(unknown(f"a parameter of {method}", parameter, specs))
    return specs[parameter]


def is_per_model(spec: ParameterSpec) -> bool:
    """Whether each merged model has a value of its own (a weight), or all share one (slerp's t)."""
    return bool(spec.scope != ParameterScope.SHARED)


def check_parameter(method: str, parameter: str, value: Any, *, searched: bool) -> None:
    """Check one value, or one end of a searched range.

    Raises:
        ValueError: unknown parameter, wrong type, not finite or out of range.
    """
    spec = parameter_spec(method, parameter)
    where = f"merge.parameters.{parameter}"
    if searched and spec.value_type is not float:
        raise ValueError(f"{where}: only numbers can be searched; give {method}'s one value")
    if spec.value_type is bool and not isinstance(value, bool):
        raise ValueError(f"{where}: {value!r} must be true or false")
    if spec.value_type not in (int, float):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: {value!r} must be a finite number")
    limits = _LIMITS.get(parameter)
    if limits and not limits.low <= value <= limits.high:
        raise ValueError(
            f"{where}: {value:g} is out of range; allowed: {limits.low:g} to {limits.high:g}"
        )


def is_pairwise(method: str) -> bool:
    """Whether the method goes from one model to another, one of which mergekit calls the base."""
    contract = merge_methods()[method].contract
    return bool(contract.base == BasePolicy.REQUIRED and contract.max_inputs == 2)


def takes_base(method: str) -> bool:
    """Whether the method makes something of the base model beside the endpoints."""
    base = merge_methods()[method].contract.base
    return not is_pairwise(method) and base in (BasePolicy.REQUIRED, BasePolicy.OPTIONAL)


def check_models(method: str, endpoints: int, *, has_base: bool) -> None:
    """Check that a method can merge so many endpoints, with or without a base model.

    Raises:
        ValueError: too few or too many endpoints, or the base is missing.
    """
    contract = merge_methods()[method].contract
    needs_base = contract.base == BasePolicy.REQUIRED and not is_pairwise(method)
    if needs_base and not has_base:
        raise ValueError(f"base: is required by {method}; name the model that was fine-tuned")
    limit = contract.max_non_base or contract.max_inputs
    if limit is not None and endpoints > limit:
        raise ValueError(
            f"endpoints: {method} merges at most {limit} models, {endpoints} are named"
        )
    inputs = endpoints + (has_base and takes_base(method))
    if inputs < contract.min_inputs:
        raise ValueError(
            f"endpoints: {method} needs at least {contract.min_inputs} models, {inputs} are named"
        )
