"""A recipe, resolved by mergekit's planner into the tensors of the merged model.

With `mergekit.py` and `seeds.py`, this is what knows mergekit's internals, and the reason why its
version is pinned. What it does not do here is to depend on the order of a set of models, which
differs between processes and decides a merged vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from types import SimpleNamespace
from typing import Any

import torch
from mergekit.common import ModelReference
from mergekit.merge import _set_chat_template, _update_config_vocab
from mergekit.plan import MergePlanner
from transformers import AutoTokenizer

from mergelib.errors import MergeError
from mergelib.recipes import Recipe

_REFUSALS = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, OSError)
"""What mergekit raises where a recipe cannot be merged."""


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of a merged model: what goes into it, with filters and gradients resolved.

    Attributes:
        name: its name in the merged model.
        models: the models that go into it, in mergekit's order.
        base: the one of them that is the base model, where there is one.
        sources: each model's tensor, memory-mapped; None where a model has none of that very
            shape and name, and mergekit must fetch it.
        shared: the merge method's parameters that all models share.
        each: those of each model, by model.
        dtype: of the arithmetic; None for the sources' own.
        out_dtype: the type that the merged tensor is rounded to; None for the arithmetic's.
    """

    name: str
    models: tuple[str, ...]
    base: str | None
    sources: tuple[torch.Tensor | None, ...]
    shared: Mapping[str, Any]
    each: Mapping[str, Mapping[str, Any]]
    dtype: torch.dtype | None
    out_dtype: torch.dtype | None
    _task: Any

    def task(self) -> Any:
        """Mergekit's task that merges it, with these parameters."""
        of_models = dict(zip(self._task.model_order, self.models, strict=True))
        each = {model: self.each[name] for model, name in of_models.items() if name in self.each}
        return self._task.model_copy(update={"parameters": self.shared, "input_parameters": each})


class Plan:
    """A recipe, resolved into the tensors of the merged model."""

    def __init__(
        self,
        recipe: Recipe,
        planner: MergePlanner,
        models: Sequence[ModelReference],
        tensors: Sequence[PlannedTensor],
    ) -> None:
        """Keep what mergekit's planner made; `MergekitMerger.plan` makes plans."""
        self.recipe = recipe
        self.tensors = tuple(tensors)
        self._planner = planner
        self._models = models

    @property
    def base(self) -> str:
        """The model from which mergekit takes configuration and tokenizer files."""
        given = self.recipe.config.get("base_model")
        return str(given) if given else self.recipe.models[0]

    @cached_property
    def vocabulary(self) -> Any:
        """Mergekit's TokenizerInfo, where the recipe has tokenizer options; else None."""
        task = self._planner._tokenizer_task
        if task is None:
            return None
        # Mergekit has the models in the order of their hashes, which differs between processes.
        ordered = task.model_copy(
            update={
                "base_model": task.base_model or self._models[0],
                "referenced_models": tuple(self._models),
            }
        )
        with refused("tokenizer"), redirect_stderr(StringIO()):  # its progress bar
            return ordered.execute()

    @cached_property
    def tokenizer(self) -> Any:
        """The merged model's tokenizer; None where it is the base model's, as it is.

        Raises:
            MergeError: it cannot be made.
        """
        template = self._planner.config.chat_template
        if self.vocabulary is None and not template:
            return None
        trusted = self._planner.options.trust_remote_code
        with refused("chat_template"):
            tokenizer = (
                self.vocabulary.tokenizer
                if self.vocabulary is not None
                else AutoTokenizer.from_pretrained(self._folder, trust_remote_code=trusted)
            )
            ordered = SimpleNamespace(
                chat_template=template, referenced_models=lambda: self._models
            )
            _set_chat_template(tokenizer, ordered, trusted)
        return tokenizer

    @cached_property
    def model_config(self) -> Any:
        """The merged model's transformers configuration, as mergekit writes it.

        Raises:
            MergeError: it cannot be made.
        """
        config = self._planner.out_model_config
        if self.vocabulary is not None:
            options = self._planner.config.tokenizer
            _update_config_vocab(
                config,
                self._planner.arch_info,
                self.vocabulary.tokenizer,
                pad_to_multiple_of=options.pad_to_multiple_of if options else None,
            )
        for key in ("layer_types", "mlp_layer_types"):
            if getattr(config, key, None):
                # Mergekit leaves the base's; transformers refuses another count than of layers.
                with refused(key):
                    setattr(config, key, [kind for part in self._layers(key) for kind in part])
        return config

    def _layers(self, key: str) -> Iterator[Sequence[str]]:
        """What a configuration says of each slice's layers, as its first source has them."""
        for module in self._planner.config.modules.values():
            for part in module.slices:
                source = part.sources[0]
                kinds = getattr(self._planner._model_arch(source.model).config, key)
                yield kinds[slice(*source.layer_range)]

    @property
    def _folder(self) -> str:
        return str((self._planner.config.base_model or self._models[0]).model.path)


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Tell what mergekit refuses as a MergeError, in one line.

    Running out of memory is none of a recipe's doing and stays torch's own error.
    """
    try:
        yield
    except _REFUSALS as error:
        if _is_out_of_memory(error):
            raise
        raise MergeError(f"{what}: {' '.join(str(error).split())[:300]}") from error


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
