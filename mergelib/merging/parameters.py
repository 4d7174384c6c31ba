"""What a recipe gives as parameters: values, gradients over the layers, filters by tensor name.

A setting is a value, a list of values (a gradient), a mapping {filter, value}, or a list of such
mappings, of which the first that fits a tensor's name holds for it.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mergekit.config import ConditionalParameter
from mergekit.merge_methods.base import ParameterScope, ParameterSpec

from mergelib.merging.documents import (
    Inputs,
    Scope,
    at,
    key_faults,
    kind_fault,
    model_of,
    reference,
    shown,
)
from mergelib.merging.methods import (
    check_density,
    check_parameter,
    is_per_model,
    merge_methods,
    parameter_spec,
    value_type,
)

_SCALARS = (bool, int, float, str)
_LARGEST = sys.float_info.max
_LONGEST = 80
"""No value is longer as text; a whole document put there by mistake would fill the message."""


def parameter_faults(
    method: str | None, settings: Any, path: str, *, of_one_model: bool
) -> Iterator[str]:
    """What is wrong with the parameters given in one place.

    Args:
        method: the merge method; None if it is not known, so only the settings' form is checked.
        settings: what stands under `parameters`.
        path: its path.
        of_one_model: whether they belong to one model, or to all.
    """
    if settings is None:
        return
    if not isinstance(settings, Mapping):
        yield kind_fault(path, settings, "a mapping of parameters to values")
        return
    for name, setting in settings.items():
        here = at(path, name)
        spec = None
        if method is not None:
            try:
                known = name[:80] if isinstance(name, str) else shown(name)
                spec = parameter_spec(method, known, here)
            except ValueError as fault:
                yield str(fault)
                continue
            if of_one_model and not is_per_model(spec):
                yield (
                    f"{here}: is one value for all models of {method}, so mergekit ignores it "
                    "under one model; move it to the parameters at the document's top"
                )
        yield from _setting_faults(method, spec, setting, here)


def _setting_faults(
    method: str | None, spec: ParameterSpec | None, setting: Any, path: str
) -> Iterator[str]:
    if isinstance(setting, list) and any(isinstance(part, Mapping) for part in setting):
        for position, part in enumerate(setting):
            if isinstance(part, Mapping):
                yield from _setting_faults(method, spec, part, at(path, position))
            else:
                what = "a mapping {filter, value} as the others of its list are"
                yield kind_fault(at(path, position), part, what)
        return
    if not isinstance(setting, Mapping):
        yield from _value_faults(method, spec, setting, path)
        return
    yield from key_faults(setting, path, ConditionalParameter)
    if not isinstance(setting.get("filter"), str | None):
        what = "text that a tensor's name contains, or '*' for all"
        yield kind_fault(at(path, "filter"), setting["filter"], what)
    if "value" not in setting:
        yield f"{at(path, 'value')}: is required beside filter"
    else:
        yield from _value_faults(method, spec, setting["value"], at(path, "value"))


def _value_faults(
    method: str | None, spec: ParameterSpec | None, value: Any, path: str
) -> Iterator[str]:
    if value == []:
        yield f"{path}: an empty list gives no value; give at least one, or leave the key out"
    elif isinstance(value, list):
        if spec and value_type(spec) is int and len(value) > 1:
            yield f"{path}: a list is interpolated to numbers that are not whole; give one value"
        for position, part in enumerate(value):
            yield from _scalar_faults(method, spec, part, at(path, position))
    else:
        yield from _scalar_faults(method, spec, value, path)


def _scalar_faults(
    method: str | None, spec: ParameterSpec | None, value: Any, path: str
) -> Iterator[str]:
    if not isinstance(value, _SCALARS):
        yield kind_fault(path, value, "one value, such as a number")
    elif isinstance(value, int) and abs(value) > _LARGEST:
        yield kind_fault(path, value, "a finite number")
    elif isinstance(value, str) and len(value) > _LONGEST:
        yield kind_fault(path, value, "one value, such as a number")
    elif method is not None and spec is not None:
        try:
            read = as_mergekit_reads(spec, value)
            check_parameter(method, spec.name, read, searched=False, where=path)
        except ValueError as fault:
            yield str(fault)


def as_mergekit_reads(spec: ParameterSpec, value: Any) -> Any:
    """A value as mergekit's validation turns it into the parameter's type.

    Text such as "1e-5" is a number to it, and 1.0 is true; what it refuses, and true in a number's
    place, which says nothing, is returned as it is.
    """
    if isinstance(value, bool) and value_type(spec) is not bool:
        return value
    try:
        return spec.validate(value)
    except ValueError:
        return value


def settings_by_filter(setting: Any) -> Iterator[tuple[Any, Any]]:
    """Each value or gradient of a setting with its filter; None where it holds for all tensors."""
    parts = setting if isinstance(setting, list) else [setting]
    if not any(isinstance(part, Mapping) for part in parts):
        yield None, setting
        return
    for part in parts:
        if isinstance(part, Mapping):
            yield part.get("filter"), part.get("value")


def filters_of(settings: Any, path: str) -> Iterator[tuple[str, str]]:
    """The path and the text of each filter among the parameters given in one place."""
    for name, setting in settings.items() if isinstance(settings, Mapping) else ():
        parts = enumerate(setting) if isinstance(setting, list) else [(None, setting)]
        for position, part in parts:
            text = part.get("filter") if isinstance(part, Mapping) else None
            if isinstance(text, str):
                here = at(path, name) if position is None else at(at(path, name), position)
                yield at(here, "filter"), text


def completeness_faults(method: str, inputs: Inputs) -> Iterator[str]:
    """Parameters that are required and given nowhere, or that do not fit each other.

    Args:
        method: the merge method.
        inputs: models that are merged with each other; each of them can be read.
    """
    specs = merge_methods()[method].parameters
    base = reference(inputs.base)
    models = [reference(model_of(entry)) for entry in inputs.entries]
    for spec in specs:
        if not spec.required or _is_given(spec.name, inputs.scopes):
            continue
        if not is_per_model(spec):
            path = at(inputs.scopes[-1].path, spec.name)
            yield f"{path}: is required by {method}; give it a value"
            continue
        for position, model in enumerate(models):
            own = inputs.own_scope(position)
            needed = model != base or spec.scope == ParameterScope.INPUT
            if needed and not _is_given(spec.name, (own,)):
                yield (
                    f"{at(own.path, spec.name)}: is required by {method}; give it here, or for "
                    f"all models as {at(inputs.scopes[-1].path, spec.name)}"
                )
        added = base is not None and base not in models and not inputs.is_slice
        if added and spec.scope == ParameterScope.INPUT:
            yield (
                f"{inputs.base_path}: mergekit adds {str(base)!r} to the models, and {method} "
                f"needs its {spec.name}; list it under {inputs.path} too, or leave base_model out"
            )
    if {"density", "epsilon"} <= {spec.name for spec in specs}:
        for position, model in enumerate(models):
            if model != base:
                yield from _density_faults(method, (inputs.own_scope(position), *inputs.scopes))


def _is_given(parameter: str, scopes: Sequence[Scope]) -> bool:
    return any(parameter in scope.settings for scope in scopes)


def _density_faults(method: str, scopes: Sequence[Scope]) -> Iterator[str]:
    """What DELLA's density and epsilon are for a tensor of each filter, and for one of none."""
    tensors = {""}
    for scope in scopes:
        tensors |= {text for _, text in filters_of(scope.settings, "")}
    for tensor in sorted(tensors):
        where, density = _for_tensor(method, "density", scopes, tensor)
        _, epsilon = _for_tensor(method, "epsilon", scopes, tensor)
        if density and epsilon:
            try:
                check_density(method, sorted({min(density), max(density)}), max(epsilon), where)
            except ValueError as fault:
                yield str(fault)


def _fits(text: Any, tensor: str) -> bool:
    return text in (None, "*") or (isinstance(text, str) and bool(tensor) and text in tensor)


def _for_tensor(
    method: str, parameter: str, scopes: Sequence[Scope], tensor: str
) -> tuple[str, list[float]]:
    """A parameter's path and values for a tensor; no values if one of them is at fault."""
    spec = parameter_spec(method, parameter)
    for scope in scopes:
        if parameter not in scope.settings:
            continue
        for text, value in settings_by_filter(scope.settings[parameter]):
            if _fits(text, tensor):
                parts = value if isinstance(value, list) else [value]
                usable = not any(list(_scalar_faults(method, spec, part, "")) for part in parts)
                values = [as_mergekit_reads(spec, part) for part in parts] if usable else []
                return at(scope.path, parameter), values
    return at(scopes[-1].path, parameter), [spec.default]
