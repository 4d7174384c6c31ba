"""A model that stays in memory while one candidate after the other is written into it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError

transformers_logging.disable_progress_bar()

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class ResidentModel:
    """A causal language model whose parameters are overwritten in place.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: the tokenizer of the checkpoint that it was opened from.
    """

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        """Load the model from a checkpoint once.

        Args:
            checkpoint: gives architecture, tokenizer and first weights; the base model as a rule.
            device: a torch device.
            dtype: the type of the arithmetic while answering.
        """
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder, dtype=DTYPES[dtype]
        )
        self.model.to(device).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.folder)
        # A tied head shares its tensor with the embeddings and is not listed twice.
        self._parameters: dict[str, torch.Tensor] = dict(self.model.named_parameters())
        self._tied = set(self.model.state_dict()) - set(self._parameters)

    @property
    def parameter_count(self) -> int:
        """How many parameters the model has, tied ones counted once."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    @torch.no_grad()
    def write(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Overwrite every parameter.

        Args:
            tensors: name and value of each tensor; a tied tensor may be given or left out.

        Raises:
            MergeError: a parameter is missing, unknown or of another shape. The model then holds
                a mixture and must be written again before it is used.
        """
        missing = set(self._parameters)
        for name, value in tensors:
            parameter = self._parameters.get(name)
            if parameter is None:
                if name in self._tied:
                    continue
                raise MergeError(f"tensor {name} is not in the model")
            if parameter.shape != value.shape:
                shapes = f"{list(value.shape)}, the model's {list(parameter.shape)}"
                raise MergeError(f"tensor {name} has shape {shapes}")
            parameter.copy_(value)
            missing.discard(name)
        if missing:
            raise MergeError(f"tensor {min(missing)} was not written")

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
