"""A resident model answers items: by a fast path where it can, else by lm-eval's own back end."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mergelib.benchmarks.answers import Job, Meter, NoAnswer, RawAnswers, Spending
from mergelib.benchmarks.choices import Loglikelihoods, read_pair, read_windows
from mergelib.benchmarks.decoder import Decoder
from mergelib.benchmarks.generation import Generations, read_prompt
from mergelib.benchmarks.items import Item
from mergelib.benchmarks.quantised import Bits, QuantisedModel
from mergelib.benchmarks.reference import Reference
from mergelib.benchmarks.suitability import cut_items, padding_tokenizer, unanswerable
from mergelib.benchmarks.trial import obstacle
from mergelib.merging.resident import ResidentModel
from mergelib.time_limit import TimeLimit

__all__ = ["Answerer", "Engine", "NoAnswer", "RawAnswers", "Spending"]

logger = logging.getLogger(__name__)

Engine = Literal["auto", "lm_eval"]

_AUTO_BATCH = 128
"""Texts written together unless the search file says; memory may allow fewer."""

_AUTO_BATCH_REFERENCE_GPU = 16
"""lm-eval's own "auto" probes the memory anew at each call, which costs more than the answers."""

_CAPACITY, _CAPACITY_GPU = 256, 4096
"""Tokens that go through the model together, at most: more fill a processor no better, but each
token is held against all others of its row, its own text's or not."""

_KEPT = 8
"""Sets of items whose preparation is kept: a search asks the same ones of every candidate."""


@dataclass(frozen=True)
class _Prepared:
    """A set of items, ready to be asked.

    Attributes:
        jobs: each with the numbers of the requests that it answers, in its order.
        refused: the numbers of requests that nothing can answer, and why.
        repeats: for each item, how many answers each of its requests has.
    """

    jobs: list[tuple[list[int], Job]]
    refused: dict[int, NoAnswer]
    repeats: list[list[int]]


def texts_together(batch: int | str) -> int:
    """How many texts are written together, by what the search file says."""
    return _AUTO_BATCH if batch == "auto" else int(batch)


class Answerer:
    """Asks a resident model; the weights may change between calls.

    Attributes:
        batch: how many texts are written together, at most.
        notes: what is no obstacle and yet worth telling, a line each.
    """

    def __init__(
        self,
        resident: ResidentModel,
        batch: int | str,
        engine: Engine = "auto",
        quantization: Bits | None = None,
    ) -> None:
        """Wrap the model once: its set-up is the slow part of lm-eval.

        Args:
            resident: the model that answers.
            batch: texts written together, or "auto".
            engine: "lm_eval" for lm-eval's own back end throughout.
            quantization: how wide weights are while they answer; None for as they are.

        Raises:
            InputError: the model cannot be quantised.
        """
        self._quantised = None if quantization is None else QuantisedModel(resident, quantization)
        model = resident.model if self._quantised is None else self._quantised.model
        on_cpu = model.device.type == "cpu"
        self.batch = texts_together(batch)
        reference_batch = self.batch
        if batch == "auto" and not on_cpu:
            reference_batch = _AUTO_BATCH_REFERENCE_GPU
        tokenizer, note = padding_tokenizer(resident.tokenizer)
        self.notes = [] if note is None else [note]
        self._lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=reference_batch)
        self._parameters = resident.parameter_count
        self._engine = engine
        self._capacity = _CAPACITY if on_cpu else _CAPACITY_GPU
        self._decoder = Decoder(model)
        self._prepared: OrderedDict[tuple[str, ...], _Prepared] = OrderedDict()

    @cached_property
    def _fast(self) -> bool:
        """Whether the fast path is right for this model; where it is not, the log says why."""
        if self._engine == "lm_eval":
            return False
        reason = obstacle(self._decoder)
        if reason is not None:
            kind = type(self._decoder.model).__name__
            logger.warning("%s answers through lm-eval's own back end: %s", kind, reason)
        return reason is None

    def answer(
        self, items: Sequence[Item], limit: TimeLimit | None = None
    ) -> tuple[RawAnswers, Spending]:
        """Ask every request of every item.

        Args:
            items: what to ask, of one benchmark or several: requests of a kind share batches.
            limit: by when all is to be answered; None for any time.

        Returns:
            The raw answers, an entry for each item, and what they cost.

        Raises:
            TooSlow: time is up.
        """
        if self._quantised is not None:
            self._quantised.refresh()
        return self._answer(items, limit)

    @torch.inference_mode()
    def _answer(
        self, items: Sequence[Item], limit: TimeLimit | None
    ) -> tuple[RawAnswers, Spending]:
        meter = Meter(self._decoder.model, self._parameters, limit)
        prepared = self._prepare(items)
        answers: dict[int, Any] = dict(prepared.refused)
        for numbers, job in prepared.jobs:
            answers.update(zip(numbers, job.answer(meter), strict=True))
        flat = iter([answers[number] for number in range(len(answers))])
        raw = [[[next(flat) for _ in range(n)] for n in repeats] for repeats in prepared.repeats]
        return raw, meter.spent

    def unanswerable(self, items: Sequence[Item]) -> str | None:
        """Why none of a benchmark's items can be answered; None where some can."""
        return unanswerable(items, self._lm)

    def cut(self, items: Sequence[Item]) -> list[Item]:
        """Those that are longer than the context, so that their prompts are cut on the left."""
        return cut_items(items, self._lm)

    def _prepare(self, items: Sequence[Item]) -> _Prepared:
        key = tuple(item.digest for item in items)
        if key not in self._prepared:
            self._prepared[key] = self._newly_prepared(items)
            if len(self._prepared) > _KEPT:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(key)
        return self._prepared[key]

    def _newly_prepared(self, items: Sequence[Item]) -> _Prepared:
        repeats = [[i.repeats or 1 for i in item.instances] for item in items]
        asked = [
            instance
            for item in items
            for instance in item.instances
            for _ in range(instance.repeats or 1)
        ]
        prepared = _Prepared([], {}, repeats)
        for kind in dict.fromkeys(instance.request_type for instance in asked):
            numbers = [n for n, instance in enumerate(asked) if instance.request_type == kind]
            read = {n: self._read(asked[n]) for n in numbers}
            refused = {n: r for n, r in read.items() if isinstance(r, NoAnswer)}
            prepared.refused.update(refused)
            known = [n for n in numbers if n not in refused and read[n] is not None and self._fast]
            other = [n for n in numbers if n not in refused and n not in known]
            if known:
                job = self._job(kind, [read[n] for n in known], [asked[n] for n in known])
                prepared.jobs.append((known, job))
            if other:
                if self._fast:
                    name = asked[other[0]].task_name
                    logger.warning(
                        "%s: lm-eval's own back end writes: not the fast path's settings", name
                    )
                prepared.jobs.append((other, self._other([asked[n] for n in other])))
        return prepared

    def _other(self, instances: Sequence[Instance]) -> Job:
        """What answers requests of a kind that the fast path leaves alone."""
        return Reference(self._lm, instances)

    def _read(self, instance: Instance) -> Any:
        """What a job is made from; a `NoAnswer`; or None, where only the back end knows."""
        if instance.request_type == "loglikelihood":
            pair = read_pair(self._lm, *instance.args)
            return pair if isinstance(pair, NoAnswer) else [pair]
        if instance.request_type == "loglikelihood_rolling":
            return read_windows(self._lm, *instance.args)
        return read_prompt(self._lm, instance)

    def _job(self, kind: str, read: list[Any], asked: list[Instance]) -> Job:
        if kind == "generate_until":
            return Generations(self._lm, self._decoder, read, self.batch, self._capacity)
        names = [str(instance.task_name) for instance in asked]
        rolling = kind == "loglikelihood_rolling"
        return Loglikelihoods(self._decoder, read, names, rolling, self._capacity)
