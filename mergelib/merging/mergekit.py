"""Merging in memory through mergekit's own planner and arithmetic: every method it has, no disk.

`MergePlanner.plan_in_memory` of mergekit 0.1.5 raises (a generic type does not match), so the plan
is made by `_plan` and each tensor's merge task is executed here, on memory-mapped tensors.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mergekit.architecture import get_architecture_info
from mergekit.architecture.conversion import convert_checkpoint_tensors
from mergekit.common import ModelReference, dtype_from_name
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import GatherTensors, LoaderCache
from mergekit.merge import _model_out_config
from mergekit.options import MergeOptions

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError, unknown
from mergelib.merging.layout import RecordingPlanner, Settings, Slot, structure
from mergelib.merging.methods import RANDOM_METHODS
from mergelib.merging.plan import Plan, PlannedTensor, refused
from mergelib.merging.seeds import mask_seeds, random_numbers_from, seed_of
from mergelib.merging.validation import degenerate_weights, recipe_faults, unmatched_filters
from mergelib.recipes import Recipe


class MergekitMerger:
    """Merges recipes over a fixed set of checkpoints, held open through memory maps."""

    def __init__(self, checkpoints: Mapping[str, Checkpoint], seed: int) -> None:
        """Open the checkpoints.

        Args:
            checkpoints: every model that a recipe may name, by the name it is given there.
            seed: decides the random masks of DARE and DELLA.
        """
        self._checkpoints = dict(checkpoints)
        self._folders = {name: str(c.folder) for name, c in checkpoints.items()}
        self._names = {folder: name for name, folder in self._folders.items()}
        self._tensors = {name: dict(c.tensors()) for name, c in checkpoints.items()}
        self._layers = {
            name: count
            for name, c in checkpoints.items()
            if isinstance(count := c.config.get("num_hidden_layers"), int)
        }
        self._seed = seed
        self._planners: dict[str, RecordingPlanner] = {}
        trusted = any(checkpoint.trust_remote_code for checkpoint in checkpoints.values())
        self._options = MergeOptions(quiet=True, trust_remote_code=trusted)
        LoaderCache().setup(self._options)

    def plan(self, recipe: Recipe) -> Plan:
        """Check a recipe and resolve it into tensors; nothing is merged yet.

        Raises:
            MergeError: the recipe is not in order, names an unknown model, or mergekit refuses it.
        """
        if faults := recipe_faults(recipe.config, self._layers):
            raise MergeError("; ".join(faults))
        config = self._configuration(recipe)
        key = structure(recipe)
        planner = self._planners.get(key)
        if planner is None:
            planner = self._planner(config, recipe)
            # A search has one structure; where layers are searched, every recipe has its own.
            self._planners = {key: planner}
        with refused("mergekit"):
            settings = Settings(config, self._name)
            tensors = [self._planned(planner, slot, settings) for slot in planner.slots]
        plan = Plan(recipe, planner, self._models(recipe), tensors)
        self._check(plan)
        return plan

    def _configuration(self, recipe: Recipe) -> MergeConfiguration:
        with refused("mergekit"):
            return MergeConfiguration.model_validate(recipe.with_models(self._reference))

    def _models(self, recipe: Recipe) -> list[ModelReference]:
        return [ModelReference.model_validate(self._reference(model)) for model in recipe.models]

    def _planner(self, config: MergeConfiguration, recipe: Recipe) -> RecordingPlanner:
        with refused("mergekit"):
            architecture = get_architecture_info(config, self._options)
            # Mergekit takes the first of a set of models, which differs between processes.
            base = config.base_model or self._models(recipe)[0]
            based = config.model_copy(update={"base_model": base})
            out = _model_out_config(based, architecture, self._options.trust_remote_code)
            # The planner changes the configuration that it is given.
            own = config.model_copy(deep=True)
            planner = RecordingPlanner(own, architecture, self._options, out, names=self._names)
            planner._plan()
        return planner

    def _check(self, plan: Plan) -> None:
        """Check what can only be told of single tensors: filters, and weights that cancel out."""
        if faults := unmatched_filters(plan.recipe.config, [t.name for t in plan.tensors]):
            raise MergeError("; ".join(faults))
        method = plan.recipe.method
        for tensor in plan.tensors:
            weights = [each["weight"] for each in tensor.each.values() if "weight" in each]
            if weights and (fault := degenerate_weights(method, tensor.shared, weights)):
                raise MergeError(f"parameters.weight: {fault} (tensor {tensor.name})")

    def _planned(self, planner: RecordingPlanner, slot: Slot, settings: Settings) -> PlannedTensor:
        parameters = settings.resolve(slot)
        return PlannedTensor(
            name=slot.weight.name,
            models=slot.models,
            base=slot.base,
            sources=self._sources(slot),
            shared=parameters.shared,
            each=parameters.each,
            dtype=dtype_from_name(planner.config.dtype),
            out_dtype=dtype_from_name(slot.weight.force_dtype or planner.config.out_dtype),
            _task=slot.task,
        )

    def _sources(self, slot: Slot) -> tuple[torch.Tensor | None, ...]:
        """Each model's stored tensor; none where vocabularies are aligned first."""
        gather = slot.task.gather_tensors
        if not isinstance(gather, GatherTensors):
            return (None,) * len(slot.models)
        infos = {self._name(model): info for model, info in gather.weight_info.items()}
        return tuple(self._find(model, infos[model]) for model in slot.models)

    def merge(self, recipe: Recipe) -> Iterator[tuple[str, torch.Tensor]]:
        """Merge one tensor after the other.

        Args:
            recipe: what to merge; its models must be among the checkpoints.

        Yields:
            Each tensor's name in the merged model, and its value in the recipe's `out_dtype`.

        Raises:
            MergeError: the recipe cannot be merged, or a tensor has values that are not finite.
                Running out of memory is none of the recipe's doing and stays torch's own error.
        """
        plan = self.plan(recipe)
        for tensor in plan.tensors:
            merged = self.execute(plan, tensor)
            if merged is not None:
                yield tensor.name, merged

    def execute(self, plan: Plan, tensor: PlannedTensor) -> torch.Tensor | None:
        """Merge one tensor of a plan with mergekit's arithmetic; None where mergekit leaves it out.

        Random masks are drawn from generators seeded with `mask_seed`, so that a recipe gives the
        same tensors in any order and on any worker.

        Raises:
            MergeError: mergekit refuses it, or it has values that are not finite.
        """
        with refused(f"mergekit: {tensor.name}"):
            inputs = self._gather(plan, tensor)
            with self.seeded(plan.recipe, tensor):
                merged: torch.Tensor | None = tensor.task().execute(tensors=inputs)
        if merged is None:
            return None
        merged = merged.to(tensor.out_dtype or merged.dtype)
        if not torch.isfinite(merged).all():
            raise MergeError(not_finite(tensor.name))
        return merged

    def _gather(self, plan: Plan, tensor: PlannedTensor) -> dict[Any, torch.Tensor]:
        """What mergekit's own loading gives a tensor's merge task."""
        gather = tensor._task.gather_tensors
        plain = isinstance(gather, GatherTensors)
        inputs = {}
        for model, info in (gather if plain else gather.gather_tensors).weight_info.items():
            name = self._name(model)
            found = self._find(name, info)
            if found is None:
                found = self._converted(name, info)
            if found is None and not info.optional:
                raise MergeError(f"tensor {info.name} is not in {name}")
            if found is not None:
                convert = tensor.dtype is not None and found.is_floating_point()
                inputs[model] = found.to(tensor.dtype) if convert else found
        if plain:
            return inputs
        permuted: dict[Any, torch.Tensor] = gather.execute(
            tokenizer_info=plan.vocabulary, tensors=inputs
        )
        return permuted

    def mask_seed(self, model: str, tensor: str) -> int:
        """The seed of a model's random mask for a tensor: the same wherever the model lies."""
        return seed_of(self._seed, self._checkpoints[model].fingerprint, tensor)

    @contextmanager
    def seeded(self, recipe: Recipe, tensor: PlannedTensor) -> Iterator[None]:
        """Give the methods that draw random numbers their own for each tensor and model."""
        if recipe.method not in RANDOM_METHODS:
            yield
            return
        merged = [model for model in tensor.models if model != tensor.base]
        masks = [self.mask_seed(model, tensor.name) for model in merged]
        with mask_seeds(masks), random_numbers_from(seed_of(self._seed, tensor.name)):
            yield

    def _reference(self, name: str) -> dict[str, object]:
        if name not in self._folders:
            raise MergeError(unknown("a model of this search", name, self._folders))
        # As a string, mergekit would read "+" and "@" in a folder's name as adapter and revision.
        return {"model": {"path": self._folders[name]}}

    def _name(self, model: Any) -> str:
        return self._names[model.model.path]

    def _find(self, model: str, info: Any) -> torch.Tensor | None:
        tensors = self._tensors[model]
        names = (info.name, *(info.aliases or ()), *(info.tied_names or ()))
        return next((tensors[name] for name in names if name in tensors), None)

    def _converted(self, model: str, info: Any) -> torch.Tensor | None:
        """A tensor that the checkpoint stores in other pieces than transformers' model holds it."""
        kind, stored = self._checkpoints[model].config.get("model_type"), self._tensors[model]
        names = (info.name, *(info.aliases or ()))
        made = (convert_checkpoint_tensors(kind, stored, name) for name in names)
        return next((tensor for tensor in made if tensor is not None), None)


def not_finite(tensor: str) -> str:
    """What a candidate whose weights overflowed is told."""
    return f"tensor {tensor} has values that are not finite"
