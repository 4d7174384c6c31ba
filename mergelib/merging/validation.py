"""Checks a whole mergekit document before mergekit sees it.

mergekit 0.1.5 drops keys and parameters that it does not know, and merges with a density of 1.7 or
a weight of NaN. Here each of these is a fault: one line with the key's path, the value, and what is
allowed or what to do.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mergekit.config import (
    InputModelDefinition,
    InputSliceDefinition,
    MergeConfiguration,
    OutputModuleDefinition,
    OutputSliceDefinition,
)
from mergekit.merge_methods.base import BasePolicy

from mergelib.errors import unknown
from mergelib.merging.documents import (
    Inputs,
    at,
    entries_of,
    holders_of,
    inputs_of,
    key_faults,
    kind_fault,
    model_faults,
    model_of,
    reference,
    shown,
)
from mergelib.merging.methods import elects_signs, merge_methods
from mergelib.merging.parameters import completeness_faults, filters_of, parameter_faults
from mergelib.merging.vocabulary import tokenizer_faults

_TYPES = ("bfloat16", "float16", "float32", "float64")
_WAYS = ("models", "slices", "modules")


def recipe_faults(document: Any, layers: Mapping[str, int] | None = None) -> list[str]:
    """Everything that is wrong with a recipe, as far as it shows without opening a checkpoint.

    Args:
        document: the parsed YAML; anything is taken, and nothing is raised.
        layers: how many layers a model has, by the name that the recipe gives it, where known.

    Returns:
        One line for each fault, none of them twice; empty where the recipe is in order.
    """
    if not isinstance(document, Mapping):
        return [kind_fault("recipe", document, "a mapping of keys, such as merge_method: linear")]
    return list(dict.fromkeys(_faults(document, layers or {})))


def _faults(document: Mapping[Any, Any], layers: Mapping[str, int]) -> Iterator[str]:
    yield from key_faults(document, "", MergeConfiguration)
    name = document.get("merge_method")
    method = name if isinstance(name, str) and name in merge_methods() else None
    if method is None:
        yield from _method_faults(document)
    for key in ("dtype", "out_dtype"):
        value = document.get(key)
        if isinstance(value, str) and value.removeprefix("torch.") not in _TYPES:
            yield f"{key}: " + unknown("a type of weights", value[:80], _TYPES)
        elif not isinstance(value, str | None):
            yield kind_fault(key, value, "a type of weights, such as bfloat16")
    if document.get("base_model") is not None:
        yield from model_faults(document["base_model"], "base_model")
    yield from tokenizer_faults(document)
    yield from _way_faults(document, "", _WAYS)
    yield from _modules_faults(document.get("modules"))
    for path, holder in holders_of(document):
        yield from _list_faults(holder, path, "models")
        yield from _list_faults(holder, path, "slices")
        for position, part in enumerate(entries_of(holder, "slices")):
            yield from _slice_faults(part, at(at(path, "slices"), position))
    for path, block, of_one_model in _parameter_blocks(document):
        yield from parameter_faults(method, block, path, of_one_model=of_one_model)
    for inputs in inputs_of(document):
        yield from _inputs_faults(method, inputs, layers)


def _method_faults(document: Mapping[Any, Any]) -> Iterator[str]:
    """Why a document has no method."""
    if "merge_method" not in document:
        yield f"merge_method: is required; Allowed: {', '.join(sorted(merge_methods()))}"
    elif isinstance(name := document["merge_method"], str):
        yield "merge_method: " + unknown("a merge method", name[:80], merge_methods())
    else:
        yield kind_fault("merge_method", name, "a merge method's name, such as linear")


def _way_faults(holder: Mapping[Any, Any], path: str, ways: Sequence[str]) -> Iterator[str]:
    """Exactly one of models, slices and modules says what is merged."""
    given = [way for way in ways if holder.get(way) is not None]
    choice = f"{', '.join(ways[:-1])} or {ways[-1]}"
    if not given:
        yield f"{path or 'models'}: nothing says what is merged; give {choice}"
    for way in given[1:]:
        yield f"{at(path, way)}: stands beside {given[0]}; give one of {choice}"


def _modules_faults(modules: Any) -> Iterator[str]:
    if modules is None:
        return
    if not isinstance(modules, Mapping) or not modules:
        yield kind_fault("modules", modules, "a mapping of at least one module's name to its parts")
        return
    for name, module in modules.items():
        path = at("modules", name)
        if not isinstance(name, str):
            yield kind_fault(path, name, "a module's name")
        yield from key_faults(module, path, OutputModuleDefinition)
        if isinstance(module, Mapping):
            yield from _way_faults(module, path, _WAYS[:2])


def _list_faults(holder: Any, path: str, key: str) -> Iterator[str]:
    value = holder.get(key) if isinstance(holder, Mapping) else None
    if value is not None and not isinstance(value, list):
        yield kind_fault(at(path, key), value, "a list")
    elif value == []:
        yield f"{at(path, key)}: the list is empty; at least one entry is needed"


def _slice_faults(part: Any, path: str) -> Iterator[str]:
    yield from key_faults(part, path, OutputSliceDefinition)
    if not isinstance(part, Mapping):
        return
    if part.get("base_model") is not None:
        yield from model_faults(part["base_model"], at(path, "base_model"))
    if part.get("residual_weight") is not None:
        yield (
            f"{at(path, 'residual_weight')}: {shown(part['residual_weight'])} has no effect: "
            "mergekit takes the key and never reads it; leave it out"
        )
    if part.get("sources") is None:
        yield f"{at(path, 'sources')}: is required: a list of {{model, layer_range}}"
    yield from _list_faults(part, path, "sources")


def _parameter_blocks(document: Mapping[Any, Any]) -> Iterator[tuple[str, Any, bool]]:
    """What stands under each `parameters`, with its path and whether it is one model's."""
    for path, holder in holders_of(document):
        parts = enumerate(entries_of(holder, "slices"))
        for place, part in [(path, holder), *((at(at(path, "slices"), n), p) for n, p in parts)]:
            if isinstance(part, Mapping):
                yield at(place, "parameters"), part.get("parameters"), False
    for inputs in inputs_of(document):
        for position, entry in enumerate(inputs.entries):
            if isinstance(entry, Mapping):
                place = at(inputs.path, position)
                yield at(place, "parameters"), entry.get("parameters"), True


def _inputs_faults(method: str | None, inputs: Inputs, layers: Mapping[str, int]) -> Iterator[str]:
    """What is wrong with models that are merged with each other."""
    definition = InputSliceDefinition if inputs.is_slice else InputModelDefinition
    seen = set()
    for position, entry in enumerate(inputs.entries):
        path = at(inputs.path, position)
        yield from key_faults(entry, path, definition, what="a mapping {model: ..., ...}")
        if not isinstance(entry, Mapping):
            continue
        if "model" not in entry:
            yield f"{at(path, 'model')}: is required: a model's folder or repository"
            continue
        yield from model_faults(entry["model"], at(path, "model"))
        model = reference(entry["model"])
        if model is not None and model in seen:
            yield f"{at(path, 'model')}: {str(model)!r} is named twice; each may be named once"
        seen.add(model)
    if inputs.is_slice:
        yield from _layer_faults(inputs, layers)
    readable = all(reference(model_of(entry)) is not None for entry in inputs.entries)
    if method and readable and (inputs.base is None or reference(inputs.base) is not None):
        yield from _contract_faults(method, inputs)
        yield from completeness_faults(method, inputs)


def _layer_faults(inputs: Inputs, layers: Mapping[str, int]) -> Iterator[str]:
    lengths: dict[str, int] = {}
    for position, entry in enumerate(inputs.entries):
        path = at(at(inputs.path, position), "layer_range")
        if not isinstance(entry, Mapping):
            continue
        if "layer_range" not in entry:
            yield f"{path}: is required: the first layer and the one after the last, as [0, 8]"
            continue
        ends, model = entry["layer_range"], model_of(entry)
        if not (isinstance(ends, list) and len(ends) == 2 and all(type(e) is int for e in ends)):
            given = (
                f"[{', '.join(map(shown, ends[:4]))}]" if isinstance(ends, list) else shown(ends)
            )
            yield f"{path}: {given} must be two whole numbers [start, end]; end is not included"
            continue
        start, end = ends
        given = f"[{shown(start)}, {shown(end)}]"
        depth = layers.get(model) if isinstance(model, str) else None
        if not 0 <= start < end:
            yield f"{path}: {given} must have 0 <= start < end; end is not included"
        elif depth is not None and end > depth:
            yield f"{path}: {given} goes past the {depth} layers of {model}; allowed: up to {depth}"
        else:
            lengths[path] = end - start
    for path, length in lengths.items():
        first, first_length = next(iter(lengths.items()))
        if length != first_length:
            yield (
                f"{path}: spans {shown(length)} layers and {first} {shown(first_length)}; "
                "all sources of a slice must span equally many"
            )


def _contract_faults(method: str, inputs: Inputs) -> Iterator[str]:
    """What a method asks of its inputs: how many, with or without a base model."""
    contract = merge_methods()[method].contract
    models = [reference(model_of(entry)) for entry in inputs.entries]
    base = reference(inputs.base)
    added = base is not None and base not in models and not inputs.is_slice
    models += [base] if added else []
    if contract.base == BasePolicy.REQUIRED and base is None:
        yield f"base_model: is required by {method}; name the model to start from"
        return
    if contract.base == BasePolicy.FORBIDDEN and base in models:
        yield f"{inputs.base_path}: {method} takes no base model; leave it out"
        return
    if contract.base in (BasePolicy.REQUIRED, BasePolicy.OPTIONAL) and base not in (None, *models):
        yield (
            f"{inputs.path}: the base model {str(base)!r} is not among the sources; mergekit "
            "adds it to a list of models, never to a slice; add it as a source with its layer_range"
        )
        return
    has_base = contract.base != BasePolicy.IGNORED and base in models
    note = f", with {str(base)!r}, which mergekit adds as the base model" if added else ""
    for count, least, most, what in (
        (len(models), contract.min_inputs, contract.max_inputs, "models"),
        (
            *(len(models) - has_base, contract.min_non_base or 0, contract.max_non_base),
            "models beside the base model" if has_base else "models",
        ),
    ):
        if count < least or (most is not None and count > most):
            limit = f"at least {least}" if count < least else f"at most {most}"
            needed = f"exactly {least}" if least == most else limit
            what = what.replace("models", "model", 1) if needed.endswith(" 1") else what
            yield f"{inputs.path}: {method} merges {needed} {what}; {count} given{note}"
            return


def unmatched_filters(document: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """The filters that hold for no tensor, so that what they say is never used.

    Args:
        document: a recipe without faults.
        names: the names of the tensors of the models that are merged.

    Returns:
        One line for each filter that no name contains.
    """
    # A layer's tensor is the better example: filters mostly name its parts.
    example = min(names, key=lambda name: (not any(c.isdigit() for c in name), name), default="")
    looks = f"names look like {example}" if example else "there are no tensors"
    return [
        f"{path}: {shown(text)} is in no tensor's name; {looks}"
        for place, block, _ in _parameter_blocks(document)
        for path, text in filters_of(block, place)
        if text != "*" and not any(text in name for name in names)
    ]


def degenerate_weights(
    method: str, shared: Mapping[str, Any], weights: Sequence[float]
) -> str | None:
    """Say why a tensor's weights cannot be normalised, from what each method of 0.1.5 computes.

    - linear, with `normalize`: divides by the sum. A sum of 0 gives values that are not finite.
    - multislerp, with `normalize_weights`: the same, and a single model is returned as it is.
    - task_arithmetic, dare_linear, breadcrumbs, della_linear, with `normalize`: divide by the sum,
      or by 1 where it is below 1e-8: the weights then count as they are, and nothing says so.
    - nuslerp: always goes the second weight's share of the way; half the way where the sum is below
      1e-6, whatever the weights.
    - ties, dare_ties, della, breadcrumbs_ties, with `normalize`: take the sum element by element,
      over the models of the elected sign. The sum over all models says nothing; no fault.
    - the others have no weights, or their own: model_stock, sce and karcher compute them.

    Args:
        method: the merge method.
        shared: the parameters that hold for all models, resolved; a default for what is missing.
        weights: each model's weight, resolved; the base model's only where the method has one.

    Returns:
        One phrase, or None where the weights can be normalised or are not to be.
    """
    specs = {spec.name: spec for spec in merge_methods()[method].parameters}
    switch = "normalize_weights" if method == "multislerp" else "normalize"
    if "weight" not in specs or elects_signs(method) or not weights:
        return None
    if switch in specs and not shared.get(switch, specs[switch].default):
        return None
    if method == "multislerp" and len(weights) == 1:
        return None
    total = sum(weights)
    if not abs(total) < (1e-6 if method == "nuslerp" else 1e-8):
        return None
    outcome = {
        "linear": "linear divides by that sum",
        "multislerp": "multislerp divides by that sum",
        "nuslerp": "nuslerp merges in equal parts instead",
    }.get(method, f"{method} leaves them unnormalised instead")
    remedy = f"change one, or set {switch}: false" if switch in specs else "change one"
    return f"the weights sum to {total:g} and cannot be normalised: {outcome}; {remedy}"
