"""A resident model as it would answer with weights of 8 or 4 bits.

Weights are rounded to the nearest of 256 or 16 levels by torchao, weights alone; the arithmetic is
that of `compute.dtype`. The head, embeddings and norms stay as they are, as is usual. What is
searched and exported are the whole weights: only the answers are those of a quantised model.
"""

import copy
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from mergelib.errors import InputError
from mergelib.merging.resident import ResidentModel

Bits = Literal["int8", "int4"]

_GROUPS = (128, 64, 32)
"""Weights that share a scale, of 4 bits: the largest that divides a row; 8 bits have one a row."""


class QuantisedModel:
    """Stands for a resident model and answers with rounded weights.

    It shares with it what is not rounded, so that it takes little memory of its own.

    Attributes:
        model: the transformers model.
    """

    def __init__(self, resident: ResidentModel, bits: Bits) -> None:
        """Round the weights that the model has now.

        Args:
            resident: the model; is left as it is.
            bits: how wide the rounded weights are.

        Raises:
            InputError: torchao is not there, or most weights are in no linear layer.
        """
        if find_spec("torchao") is None:
            raise InputError(
                f"compute.quantization: {bits} needs torchao: pip install 'mergeflow[quantization]'"
            )
        self._bits = bits
        shared = {id(parameter): parameter for parameter in resident.model.parameters()}
        self.model: Any = copy.deepcopy(resident.model, shared)
        head = self.model.get_output_embeddings()
        # Subclasses have an arithmetic of their own.
        self._layers = [
            (whole, layer)
            for whole, layer in zip(resident.model.modules(), self.model.modules(), strict=True)
            if type(layer) is nn.Linear and layer is not head
        ]
        self._check()
        self.refresh()

    def _check(self) -> None:
        found = {id(layer.weight) for _, layer in self._layers}
        for module in (self.model.get_input_embeddings(), self.model.get_output_embeddings()):
            found |= {id(parameter) for parameter in module.parameters()}
        for name, parameter in self.model.named_parameters():
            if parameter.ndim > 1 and id(parameter) not in found:
                raise InputError(
                    f"compute.quantization: {name} is in no linear layer of torch and would stay "
                    "as it is; this model can only be asked with quantization: none"
                )

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the weights that were written to the resident model since."""
        for whole, layer in self._layers:
            layer.weight = whole.weight
            _quantise(layer, self._bits)


def _quantise(layer: nn.Linear, bits: Bits) -> None:
    # Loading torchao takes a second, which nobody else should wait for.
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup, quantize_

    width = layer.in_features
    group = next((size for size in _GROUPS if width % size == 0), None)
    if bits == "int8" or group is None:
        granularity: Any = PerAxis(0)
    else:
        granularity = PerGroup(group)
    kind = getattr(torch, bits)
    quantize_(layer, IntxWeightOnlyConfig(weight_dtype=kind, granularity=granularity))
