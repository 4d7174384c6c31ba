"""A model that stays in memory while one candidate after the other is written into it."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError

transformers_logging.disable_progress_bar()

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Rewriting:
    """The parameters of a model while they are overwritten: each must be, once."""

    def __init__(self, parameters: dict[str, torch.Tensor], tied: set[str]) -> None:
        """Take note that nothing is written yet."""
        self._parameters = parameters
        self._tied = tied
        self._missing = set(parameters)

    def target(self, name: str, shape: torch.Size) -> torch.Tensor | None:
        """The memory that a tensor is to be written to, which now counts as written.

        Returns:
            The parameter; None for one that is tied to another and needs no value of its own.

        Raises:
            MergeError: the model has no such parameter, or of another shape.
        """
        parameter = self._parameters.get(name)
        if parameter is None:
            if name in self._tied:
                return None
            raise MergeError(f"tensor {name} is not in the model")
        if parameter.shape != shape:
            shapes = f"{list(shape)}, the model's {list(parameter.shape)}"
            raise MergeError(f"tensor {name} has shape {shapes}")
        self._missing.discard(name)
        return parameter

    def write(self, name: str, value: torch.Tensor) -> None:
        """Write a tensor's value; see `target`."""
        parameter = self.target(name, value.shape)
        if parameter is not None:
            parameter.copy_(value)

    def finish(self) -> None:
        """Check that every parameter was written.

        Raises:
            MergeError: one was not.
        """
        if self._missing:
            raise MergeError(f"tensor {min(self._missing)} was not written")


def with_layers(config: Any, count: int) -> Any:
    """A model's configuration with another number of layers.

    Raises:
        ValueError: its layers are of several kinds, so that a new one could be any.
    """
    resized = copy.deepcopy(config)
    for key in ("layer_types", "mlp_layer_types"):
        kinds = getattr(config, key, None)
        if kinds is not None and len(set(kinds)) > 1:
            raise ValueError(f"{key} are {', '.join(sorted(set(kinds)))}: give as many layers")
        if kinds is not None:
            setattr(resized, key, kinds[:1] * count)
    resized.num_hidden_layers = count
    return resized


class ResidentModel:
    """A causal language model whose parameters are overwritten in place.

    Attributes:
        model: the transformers model, in evaluation mode.
        device: where its parameters are.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str, dtype: str, layers: int | None = None
    ) -> None:
        """Load the model from a checkpoint once.

        Args:
            checkpoint: gives architecture, tokenizer and first weights; the base model as a rule.
            device: a torch device.
            dtype: the type of the arithmetic while answering.
            layers: how many layers the model shall have, if not as many as the checkpoint; its
                weights are then random until it is written.

        Raises:
            ValueError: the checkpoint cannot be opened, or its layers are of several kinds and
                another number of them is asked for.
        """
        self._checkpoint = checkpoint
        trust: dict[str, Any] = {"trust_remote_code": checkpoint.trust_remote_code}
        config = AutoConfig.from_pretrained(checkpoint.folder, **trust)
        if layers in (None, config.num_hidden_layers):
            self.model: Any = AutoModelForCausalLM.from_pretrained(
                checkpoint.folder, dtype=DTYPES[dtype], **trust
            )
        else:
            resized = with_layers(config, layers)
            self.model = AutoModelForCausalLM.from_config(resized, dtype=DTYPES[dtype], **trust)
        self.model.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        # A tied head shares its tensor with the embeddings and is not listed twice.
        self._parameters: dict[str, torch.Tensor] = dict(self.model.named_parameters())
        self._tied = set(self.model.state_dict()) - set(self._parameters)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the checkpoint that the model was opened from."""
        return AutoTokenizer.from_pretrained(
            self._checkpoint.folder, trust_remote_code=self._checkpoint.trust_remote_code
        )

    @property
    def parameter_count(self) -> int:
        """How many parameters the model has, tied ones counted once."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    def parameter(self, name: str) -> torch.Tensor | None:
        """A parameter by its name; None where there is none, or it is tied to another."""
        return self._parameters.get(name)

    @contextmanager
    def rewriting(self) -> Iterator[Rewriting]:
        """Overwrite every parameter.

        Raises:
            MergeError: one is missing, unknown or of another shape. After any error the model
                holds a mixture and must be written again before it is used.
        """
        rewriting = Rewriting(self._parameters, self._tied)
        yield rewriting
        rewriting.finish()

    def write(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Overwrite every parameter.

        Args:
            tensors: name and value of each tensor; a tied tensor may be given or left out.

        Raises:
            MergeError: see `rewriting`.
        """
        with self.rewriting() as model:
            for name, value in tensors:
                model.write(name, value)

    def save(self, folder: Path, dtype: str) -> None:
        """Write the model and its tokenizer as a Hugging Face folder.

        Args:
            folder: is made if it is not there.
            dtype: the type of the saved tensors.
        """
        buffers = {name for name, _ in self.model.named_buffers()}
        state = {
            name: value.to("cpu", DTYPES[dtype] if value.is_floating_point() else value.dtype)
            for name, value in self.model.state_dict().items()
            # A tied head of another type would be a second copy of the embeddings.
            if name in self._parameters or name in buffers
        }
        before = self.model.config.dtype
        self.model.save_pretrained(folder, state_dict=state)
        # save_pretrained has written the type that the model answers in.
        self.model.config.dtype = DTYPES[dtype]
        self.model.config.save_pretrained(folder)
        self.model.config.dtype = before
        self.tokenizer.save_pretrained(folder)
