"""Candidates that another engine answers for: handed over as a folder in memory-backed storage.

vLLM loads a model of its own, through lm-eval's back end for it. The candidate is written as
safetensors to a folder that lies in memory, an engine is started on it, asked, and ended. A new
engine for each candidate costs its start, but cannot answer with another one's weights.
"""

import gc
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from lm_eval.api.instance import Instance

from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.answers import Job, Meter, RawAnswers, Spending
from mergelib.benchmarks.decoder import one_line
from mergelib.benchmarks.items import Item
from mergelib.errors import InputError
from mergelib.merging.resident import DTYPES, ResidentModel
from mergelib.time_limit import TimeLimit

MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory; elsewhere the usual folder for temporary files is taken."""

_PREFIX = "mergeflow-"
"""What the folders are called, followed by the number of the process that made them."""


def open_vllm(**arguments: Any) -> Any:
    """Start lm-eval's back end for vLLM."""
    from lm_eval.models.vllm_causallms import VLLM

    return VLLM(**arguments)


class HandedOver(Answerer):
    """Asks a model through another engine, which is started for each call."""

    def __init__(
        self,
        resident: ResidentModel,
        batch: int | str,
        dtype: str,
        export_dtype: str,
        *,
        trust_remote_code: bool,
    ) -> None:
        """Check that the engine is there.

        Args:
            resident: the model, on a CPU, so that the engine has the GPU for itself.
            batch: how many requests the engine is given together; "auto" for all.
            dtype: the type of the arithmetic.
            export_dtype: the type that merges are exported in, which the folder's tensors have.
            trust_remote_code: whether Python files that come with the model may be run.

        Raises:
            InputError: vLLM is not installed.
        """
        if find_spec("vllm") is None:
            raise InputError(
                "compute.engine: vllm is not installed: pip install 'mergeflow[vllm]'; allowed "
                "without it: auto, lm_eval"
            )
        super().__init__(resident, batch, "lm_eval")
        self._resident = resident
        self._export_dtype = export_dtype
        self._settings = {
            "dtype": dtype,
            "batch_size": batch,
            "trust_remote_code": trust_remote_code,
            "max_model_len": self._lm.max_length,
        }
        self._engine: Any = None

    def answer(
        self, items: Sequence[Item], limit: TimeLimit | None = None
    ) -> tuple[RawAnswers, Spending]:
        """Hand the model's weights of the moment over and ask every request of every item.

        Args:
            items: what to ask, of one benchmark or several.
            limit: when the engine must have answered; looked at between its calls.

        Returns:
            The raw answers, an entry for each item, and what they cost; tokens that the engine
            finds in its own caches are counted too.

        Raises:
            InputError: the memory-backed folder has no room for the model.
            RuntimeError: the engine does not start.
        """
        with tempfile.TemporaryDirectory(
            prefix=f"{_PREFIX}{os.getpid()}-", dir=self._room()
        ) as folder:
            self._resident.save(Path(folder), self._export_dtype)
            self._engine = self._started(folder)
            try:
                return super().answer(items, limit)
            finally:
                self._end()

    def _started(self, folder: str) -> Any:
        try:
            return open_vllm(pretrained=folder, **self._settings)
        except (ImportError, OSError, ValueError, AssertionError) as error:
            raise RuntimeError(f"vLLM does not start: {one_line(error)}") from error

    def _end(self) -> None:
        """Let go of the engine, which frees its GPU's memory."""
        self._engine = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _room(self) -> Path:
        """A folder with room for the model, cleared of what killed processes left there."""
        memory = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
        clear(memory)
        needed = self._resident.parameter_count * DTYPES[self._export_dtype].itemsize
        free = shutil.disk_usage(memory).free
        if free < needed:
            raise InputError(
                f"compute.engine: vllm takes {needed / 2**30:.1f} GiB in {memory} for a candidate, "
                f"and {free / 2**30:.1f} are free; make room, or choose engine: auto"
            )
        return memory

    def _other(self, instances: Sequence[Instance]) -> Job:
        return _Handed(self, instances)

    def ask(self, instances: Sequence[Instance], meter: Meter) -> list[Any]:
        """Let the engine answer requests of one kind.

        Args:
            instances: the requests.
            meter: counts the tokens of prompts and answers.
        """
        kind = instances[0].request_type
        answers: list[Any] = getattr(self._engine, kind)(list(instances), disable_tqdm=True)
        for instance, answer in zip(instances, answers, strict=True):
            texts = instance.args if kind != "generate_until" else (instance.args[0], answer)
            count = sum(len(self._lm.tok_encode(text)) for text in texts)
            meter.count(count, count * count / 2)
        return answers


class _Handed:
    """Requests of a kind, for whichever engine runs when they are asked."""

    def __init__(self, owner: HandedOver, instances: Sequence[Instance]) -> None:
        self._owner = owner
        self._instances = instances

    def answer(self, meter: Meter) -> list[Any]:
        return self._owner.ask(self._instances, meter)


def clear(memory: Path) -> None:
    """Remove the folders of processes that are gone: they take memory until the next start.

    Args:
        memory: where the folders are.
    """
    for folder in memory.glob(f"{_PREFIX}*"):
        owner = re.match(rf"{_PREFIX}(\d+)-", folder.name)
        if owner is not None and not psutil.pid_exists(int(owner[1])):
            # Another process may be clearing it, and another user's stays.
            with suppress(OSError):
                shutil.rmtree(folder)
