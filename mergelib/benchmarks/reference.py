"""lm-eval's own Hugging Face back end on a model in memory: the reference, and the way out."""

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mergelib.benchmarks.answers import Meter


class Reference:
    """Requests of one kind that lm-eval's back end answers."""

    def __init__(self, lm: HFLM, instances: Sequence[Instance]) -> None:
        """Keep the requests.

        Args:
            lm: the back end.
            instances: all of one kind.
        """
        self._lm = lm
        self._instances = list(instances)

    def answer(self, meter: Meter) -> list[Any]:
        """Ask the back end.

        Args:
            meter: counts what goes through the model.
        """

        def count(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            ids = kwargs.get("input_ids", args[0] if args else None)
            if ids is None:
                return
            cache = kwargs.get("past_key_values")
            before = int(cache.get_seq_length()) if cache is not None else 0
            rows, length = ids.shape
            meter.count(rows * length, rows * length * (before + length / 2))

        hook = self._lm.model.register_forward_pre_hook(count, with_kwargs=True)
        try:
            return self._ask()
        finally:
            hook.remove()

    def _ask(self) -> list[Any]:
        ask = getattr(self._lm, self._instances[0].request_type)
        while True:
            try:
                answers: list[Any] = ask(self._instances, disable_tqdm=True)
                return answers
            except torch.OutOfMemoryError:
                if self._lm.batch_size_per_gpu == 1:
                    raise
            self._lm.batch_size_per_gpu //= 2
