"""Merging in memory through mergekit's own planner and arithmetic: every method it has, no disk.

This is the one file that knows mergekit's internals, and the reason why its version is pinned:
`MergePlanner.plan_in_memory` of 0.1.5 raises (a generic type does not match), so the plan is made
by `_plan` and each tensor's merge task is executed here, on memory-mapped tensors.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from mergekit.architecture import get_architecture_info
from mergekit.common import dtype_from_name
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.merge import _model_out_config
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError, unknown
from mergelib.merging.methods import RANDOM_METHODS
from mergelib.recipes import Recipe


class MergekitMerger:
    """Merges recipes over a fixed set of checkpoints, held open through memory maps."""

    def __init__(self, checkpoints: Mapping[str, Checkpoint], seed: int) -> None:
        """Open the checkpoints.

        Args:
            checkpoints: every model that a recipe may name, by the name it is given there.
            seed: decides the random masks of DARE and DELLA.
        """
        self._folders = {name: str(c.folder) for name, c in checkpoints.items()}
        self._tensors = {str(c.folder): dict(c.tensors()) for c in checkpoints.values()}
        self._seed = seed
        self._options = MergeOptions(quiet=True)
        LoaderCache().setup(self._options)

    def merge(self, recipe: Recipe) -> Iterator[tuple[str, torch.Tensor]]:
        """Merge one tensor after the other.

        Random masks are drawn from a generator seeded with (seed, tensor name), so that a recipe
        gives the same tensors in any order and on any worker.

        Args:
            recipe: what to merge; its models must be among the checkpoints.

        Yields:
            Each tensor's name in the merged model, and its value in the recipe's `out_dtype`.

        Raises:
            MergeError: the recipe names an unknown model, mergekit refuses it, or a tensor has
                values that are not finite. Running out of memory is none of the recipe's doing and
                stays torch's own error.
        """
        local = self._local(recipe)
        try:
            config = MergeConfiguration.model_validate(local)
            architecture = get_architecture_info(config, self._options)
            planner = MergePlanner(
                config, architecture, self._options, _model_out_config(config, architecture)
            )
            planner._plan()
        except (RuntimeError, ValueError, TypeError) as error:
            raise MergeError(f"mergekit: {' '.join(str(error).split())}") from error
        dtype = dtype_from_name(config.dtype)
        for weight, task in planner._tensors:
            inputs = {
                model: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
                for model, info in task.gather_tensors.weight_info.items()
                if (tensor := self._find(str(model), info)) is not None
            }
            try:
                with self._seeded(recipe, weight.name):
                    merged = task.execute(tensors=inputs)
            except (RuntimeError, ValueError, TypeError) as error:
                if _is_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())
                raise MergeError(f"mergekit: {weight.name}: {reason}") from error
            if merged is None:
                continue
            out_dtype = dtype_from_name(weight.force_dtype or config.out_dtype)
            merged = merged.to(out_dtype or merged.dtype)
            if not torch.isfinite(merged).all():
                raise MergeError(f"tensor {weight.name} has values that are not finite")
            yield weight.name, merged

    @contextmanager
    def _seeded(self, recipe: Recipe, tensor: str) -> Iterator[None]:
        """Give the methods that draw random masks their own numbers for a tensor."""
        if recipe.method not in RANDOM_METHODS:
            yield
            return
        digest = hashlib.sha256(f"{self._seed} {tensor}".encode()).digest()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest[:8], "big", signed=True))
            yield

    def _local(self, recipe: Recipe) -> dict[str, object]:
        """The configuration with each model's local folder in place of its name."""
        config = dict(recipe.config)
        config["models"] = [
            {**entry, "model": self._reference(entry["model"])} for entry in config["models"]
        ]
        if config.get("base_model"):
            config["base_model"] = self._reference(config["base_model"])
        return config

    def _reference(self, name: str) -> dict[str, object]:
        if name not in self._folders:
            raise MergeError(unknown("a model of this search", name, self._folders))
        # As a string, mergekit would read "+" and "@" in a folder's name as adapter and revision.
        return {"model": {"path": self._folders[name]}}

    def _find(self, folder: str, info: object) -> torch.Tensor | None:
        tensors = self._tensors[folder]
        names = (info.name, *(info.aliases or ()), *(info.tied_names or ()))  # type: ignore[attr-defined]
        return next((tensors[name] for name in names if name in tensors), None)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
