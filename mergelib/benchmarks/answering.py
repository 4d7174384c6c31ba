"""A resident model answers items, through lm-eval's own Hugging Face back end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from mergelib.benchmarks.items import Item
from mergelib.merging.resident import ResidentModel

_AUTO_BATCH, _AUTO_BATCH_GPU = 128, 16
"""Items answered together unless the search file says. lm-eval's own "auto" probes the memory anew
at each call, which costs more than the answers, and makes the batch depend on what else runs."""

RawAnswers = list[list[Any]]
"""For each item and each of its requests, what lm-eval's back end returned, repeats included."""


@dataclass
class Spending:
    """What answering cost.

    Attributes:
        tokens: positions that went through the model, padding included.
        flops: 2 x parameters x tokens for the weights, and 4 x layers x width x context x tokens
            for attention (Kaplan et al. 2020, table 1, forward pass).
    """

    tokens: int = 0
    flops: float = 0.0


class Answerer:
    """Asks a resident model; the weights may change between calls."""

    def __init__(self, resident: ResidentModel, batch: int | str) -> None:
        """Wrap the model once: its set-up is the slow part of lm-eval.

        Args:
            resident: the model that answers.
            batch: items answered together, or "auto".
        """
        model = resident.model
        if batch == "auto":
            batch = _AUTO_BATCH if model.device.type == "cpu" else _AUTO_BATCH_GPU
        self.batch = int(batch)
        self._lm = HFLM(pretrained=model, tokenizer=resident.tokenizer, batch_size=self.batch)
        self._parameters = resident.parameter_count
        config = model.config.get_text_config()
        self._attention = 4 * config.num_hidden_layers * config.hidden_size
        self._spent = Spending()
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            return
        cache = kwargs.get("past_key_values")
        before = int(cache.get_seq_length()) if cache is not None else 0
        rows, length = ids.shape
        context = before + length / 2
        self._spent.tokens += rows * length
        self._spent.flops += rows * length * (2 * self._parameters + self._attention * context)

    @torch.inference_mode()
    def answer(self, items: Sequence[Item]) -> tuple[RawAnswers, Spending]:
        """Ask every request of every item.

        Args:
            items: what to ask, of one benchmark or several: requests of a kind share batches.

        Returns:
            The raw answers, an entry for each item, and what they cost.
        """
        self._spent = Spending()
        requests: dict[str, list[Any]] = {}
        for item in items:
            for instance in item.instances:
                repeated = [instance] * (instance.repeats or 1)
                requests.setdefault(instance.request_type, []).extend(repeated)
        answers = {
            kind: iter(getattr(self._lm, kind)(asked, disable_tqdm=True))
            for kind, asked in requests.items()
        }
        raw = [
            [
                [next(answers[instance.request_type]) for _ in range(instance.repeats or 1)]
                for instance in item.instances
            ]
            for item in items
        ]
        return raw, self._spent
