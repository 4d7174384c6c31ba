"""What mergekit's methods take: names, types and ranges of their parameters.

mergekit 0.1.5 ignores a parameter that it does not know and takes a density of 1.7; so recipes are
checked here before they reach it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, get_args

from mergekit.merge_methods import get, registered_methods
from mergekit.merge_methods.base import (
    BasePolicy,
    MergeMethodSpec,
    ParameterScope,
    ParameterSpec,
)
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

from mergelib.errors import unknown

RANDOM_METHODS = frozenset({"arcee_fusion", "dare_linear", "dare_ties", "della", "della_linear"})
"""Methods that draw random numbers: their recipes' digests hold the seed.

DARE and DELLA drop parameters at random; arcee_fusion samples tensors of more than a million.
"""


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


def parameter_spec(method: str, parameter: str, where: str | None = None) -> ParameterSpec:
    """One parameter of a method.

    Args:
        method: the merge method.
        parameter: its name.
        where: the parameter's place in a recipe; None for its place in a search file.

    Raises:
        ValueError: the method has no such parameter; the message names those it has.
    """
    specs = {spec.name: spec for spec in merge_methods()[method].parameters}
    if parameter not in specs:
        remedy = "choose a method that has some to search" if where is None else "leave it out"
        fault = (
            unknown(f"a parameter of {method}", parameter, specs)
            if specs
            else f"{method} takes no parameters; {remedy}"
        )
        raise ValueError(f"{where or _in_search(parameter)}: {fault}")
    return specs[parameter]


def _in_search(parameter: str) -> str:
    return f"merge.parameters.{parameter}"


def value_type(spec: ParameterSpec) -> type:
    """The type of a parameter's values; an optional parameter's values are those it may have."""
    types = [choice for choice in get_args(spec.value_type) if choice is not type(None)]
    return types[0] if types else spec.value_type  # type: ignore[no-any-return]


def elects_signs(method: str) -> bool:
    """Whether the method keeps, element by element, the task vectors of the majority's sign.

    Those of the task arithmetic family are meant, where the weights' sum is then also taken
    element by element: over the models whose task vector was kept.
    """
    merge = get(method)
    return isinstance(merge, GeneralizedTaskArithmeticMerge) and bool(merge.consensus_method)


def ignored_parameters(method: str) -> frozenset[str]:
    """The parameters that a method accepts and never reads.

    The task arithmetic family shares one list of parameters: `density` and `rescale` belong to the
    sparsification, which task_arithmetic has not, and `int8_mask` to the election of signs.
    """
    merge = get(method)
    if not isinstance(merge, GeneralizedTaskArithmeticMerge):
        return frozenset()
    unread = set() if merge.sparsification_method else {"density", "rescale"}
    return frozenset(unread if merge.consensus_method else unread | {"int8_mask"})


def is_per_model(spec: ParameterSpec) -> bool:
    """Whether each merged model has a value of its own (a weight), or all share one (slerp's t)."""
    return bool(spec.scope != ParameterScope.SHARED)


def check_parameter(
    method: str, parameter: str, value: Any, *, searched: bool, where: str | None = None
) -> None:
    """Check one value, or one end of a searched range.

    Args:
        method: the merge method.
        parameter: its name.
        value: a value to hold fixed, or an end of a range.
        searched: whether it is an end of a range.
        where: the value's place in a recipe; None for the parameter's place in a search file.

    Raises:
        ValueError: unknown parameter, wrong type, not finite, out of range, or searched although
            the method ignores it.
    """
    spec = parameter_spec(method, parameter, where)
    where = where or _in_search(parameter)
    kind = value_type(spec)
    if searched and spec.value_type not in (int, float):
        what = "true or false" if spec.value_type is bool else "optional"
        raise ValueError(
            f"{where}: is {what} and cannot be searched; give one value to hold it fixed"
        )
    if searched and parameter in ignored_parameters(method):
        using = sorted(name for name in merge_methods() if _reads(name, parameter))
        raise ValueError(
            f"{where}: is ignored by {method} and cannot be searched; methods that use it: "
            f"{', '.join(using)}"
        )
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{where}: {value!r} must be true or false")
    if kind not in (int, float):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        hint = "; YAML reads 1e-5 as text, write 1.0e-5" if _reads_as_number(value) else ""
        raise ValueError(f"{where}: {value!r} must be a finite number{hint}")
    if kind is int and value != int(value):
        raise ValueError(f"{where}: {value!r} must be a whole number")
    limits = _LIMITS.get(parameter)
    if limits and not limits.low <= value <= limits.high:
        raise ValueError(
            f"{where}: {value:g} is out of range; allowed: {limits.low:g} to {limits.high:g}"
        )


def _reads(method: str, parameter: str) -> bool:
    names = {spec.name for spec in merge_methods()[method].parameters}
    return parameter in names - ignored_parameters(method)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # A whole number that no float can hold.
        return False


def _reads_as_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def check_together(method: str, ends: Mapping[str, Sequence[Any]]) -> None:
    """Check that a method has what it needs and that its parameters fit each other.

    Args:
        method: the merge method.
        ends: each given parameter's smallest and largest value, or its one value.

    Raises:
        ValueError: a parameter without a default is not given, or DELLA's density and epsilon
            would give probabilities outside (0, 1).
    """
    specs = {spec.name: spec for spec in merge_methods()[method].parameters}
    for name, spec in specs.items():
        if spec.required and name not in ends:
            raise ValueError(
                f"merge.parameters.{name}: is required by {method}; give it a range or a value"
            )
    if {"density", "epsilon"} <= specs.keys():
        density = ends.get("density", (specs["density"].default,))
        epsilon = ends.get("epsilon", (specs["epsilon"].default,))
        check_density(method, density, max(epsilon), _in_search("density"))


def check_density(method: str, density: Sequence[float], epsilon: float, where: str) -> None:
    """Check that DELLA's probabilities of keeping an element, density +- epsilon, are in (0, 1).

    Args:
        method: della or della_linear.
        density: the smallest and the largest value, or the one value.
        epsilon: the largest value.
        where: the density's place.

    Raises:
        ValueError: they are not. A density of 0 or 1 draws nothing and fits any epsilon.
    """
    nothing_drawn = len(density) == 1 and density[0] in (0, 1)
    if not nothing_drawn and not epsilon < min(density) <= max(density) < 1 - epsilon:
        given = " to ".join(f"{end:g}" for end in density)
        raise ValueError(
            f"{where}: {given} is out of range for {method} with epsilon {epsilon:g}; "
            f"allowed: above {epsilon:g} and below {1 - epsilon:g}"
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
