"""What recipes have in common that differ in nothing but parameters: planned once.

Mergekit's planner reads configurations and makes hundreds of task objects, which takes longer than
a small model's merge. The candidates of a search differ in the values of parameters alone; those
are resolved anew, by mergekit's own resolver, for the tensors that were planned for the first one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mergekit import merge_methods
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.parameter_resolver import resolve_parameters
from mergekit.plan import MergePlanner

from mergelib.recipes import Recipe


class Slot(NamedTuple):
    """A planned tensor, and where a recipe says what its parameters are.

    Attributes:
        weight: what mergekit knows of the tensor.
        task: merges it.
        models: the models that go into it, in mergekit's order.
        inputs: the name of each model's tensor.
        base: the base model, where there is one.
        module: the name of the module that it belongs to.
        number: of the slice in the module.
        depth: from 0 for the slice's first layer to 1 for its last: where in a gradient it is.
    """

    weight: Any
    task: Any
    models: tuple[str, ...]
    inputs: Mapping[str, str]
    base: str | None
    module: str
    number: int
    depth: float


class Parameters(NamedTuple):
    """A tensor's parameters, with filters and gradients resolved.

    Attributes:
        shared: those that all models share.
        each: those of each model.
    """

    shared: Mapping[str, Any]
    each: Mapping[str, Mapping[str, Any]]


class RecordingPlanner(MergePlanner):  # type: ignore[misc]
    """Mergekit's planner, which notes for each tensor where its parameters stand.

    Attributes:
        slots: the planned tensors, in mergekit's order.
    """

    def __init__(self, *arguments: Any, names: Mapping[str, str]) -> None:
        """Make mergekit's planner; `names` says what the model in a folder is called."""
        super().__init__(*arguments)
        self.slots: list[Slot] = []
        # No more than that: mergekit's own caches hold on to planners.
        self._names = names

    def plan_tensor(
        self,
        weight: Any,
        weights_in: list[Any],
        models: list[ModelReference],
        cfg_reader: Any,
    ) -> None:
        """Plan a tensor, and note where its parameters stand."""
        planned = len(self._tensors)
        super().plan_tensor(weight, weights_in, models, cfg_reader)
        if len(self._tensors) == planned:
            return
        names, base = tuple(self._names[m.model.path] for m in models), cfg_reader.base_model
        module, number = next(
            (name, number)
            for name, module in self.config.modules.items()
            if module is cfg_reader.module
            for number, part in enumerate(module.slices)
            if part is cfg_reader.slice_out
        )
        self.slots.append(
            Slot(
                weight=weight,
                task=self._tensors[-1][1],
                models=names,
                inputs={name: info.name for name, info in zip(names, weights_in, strict=True)},
                base=None if base is None else self._names[base.model.path],
                module=module,
                number=number,
                depth=cfg_reader.t,
            )
        )


def structure(recipe: Recipe) -> str:
    """All of a recipe but its parameters: the same for recipes that are planned the same."""
    return json.dumps(_without_parameters(recipe.config), sort_keys=True, default=str)


def _without_parameters(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_parameters(v) for k, v in value.items() if k != "parameters"}
    return [_without_parameters(part) for part in value] if isinstance(value, list) else value


class Settings:
    """What a recipe says of parameters, by the slice that it says it of."""

    def __init__(self, config: MergeConfiguration, name: Callable[[ModelReference], str]) -> None:
        """Sort out a configuration.

        Args:
            config: as mergekit reads it, not yet changed by its planner.
            name: what a model is called.
        """
        self._spec = merge_methods.get(config.merge_method).spec
        self._config = config
        self._name = name
        self._scopes: dict[tuple[str, int], _Scopes] = {}

    def resolve(self, slot: Slot) -> Parameters:
        """A tensor's parameters, as mergekit resolves filters, gradients and defaults.

        Raises:
            RuntimeError: one that has no default is not given for this tensor.
        """
        scopes = self._scopes.get((slot.module, slot.number))
        if scopes is None:
            scopes = self._scopes[slot.module, slot.number] = self._read(slot)
        shared, each = resolve_parameters(
            self._spec,
            tensor_name=slot.weight.name,
            inputs=slot.inputs,
            sources=lambda model=None: (*scopes.of_models.get(model, ()), *scopes.of_all),
            base_model=slot.base,
            t=slot.depth,
        )
        return Parameters(shared, each)

    def _read(self, slot: Slot) -> "_Scopes":
        module = self._config.modules[slot.module] if self._config.modules else None
        holder = module or self._config
        part = None if holder.models else holder.slices[slot.number]
        of_models: dict[str | None, list[Any]] = {}
        for source in holder.models if part is None else part.sources:
            of_models.setdefault(self._name(source.model), []).append(source.parameters)
        of_all = (part and part.parameters, module and module.parameters, self._config.parameters)
        return _Scopes(of_models, of_all)


class _Scopes(NamedTuple):
    """What is said of one slice's parameters, in each group the narrowest scope first."""

    of_models: Mapping[str | None, Sequence[Any]]
    of_all: Sequence[Any]
