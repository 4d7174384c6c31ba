"""Models of any kind answer whole benchmarks and are compared item by item.

Unlike in a search each model answers in its own architecture, with its own tokenizer; one at a time
is held in memory.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from mergelib.benchmarks.answering import Answerer, texts_together
from mergelib.benchmarks.chat import chat_template_of
from mergelib.benchmarks.engines import device_of
from mergelib.benchmarks.handing_over import HandedOver
from mergelib.benchmarks.items import open_benchmark
from mergelib.benchmarks.of_search import told_apart
from mergelib.benchmarks.scoring import score
from mergelib.checkpoints import open_checkpoint
from mergelib.entrants import names_of, notes, with_runs
from mergelib.errors import InputError
from mergelib.evaluation import Evaluation, nothing_done
from mergelib.intervals import mean_score, paired_difference
from mergelib.merging.resident import DTYPES, ResidentModel
from mergelib.recipes import canonical_digest
from mergelib.sections.comparison import Comparison
from mergelib.tables import response_matrix

COMPARISON_SCHEMA = pa.schema(
    {
        "model": pa.string(),
        "name": pa.string(),
        "reference": pa.string(),
        "benchmark": pa.string(),
        "items": pa.int32(),
        "not_scored": pa.int32(),
        "score": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "diff": pa.float64(),
        "diff_low": pa.float64(),
        "diff_high": pa.float64(),
    }
)

_PART = 512
"""Items that are answered, and kept, together: what a killed comparison loses at most."""


class Part(NamedTuple):
    """Some items of one benchmark, for one model.

    Attributes:
        model: the model's number.
        benchmark: the benchmark's name.
        items: their ids.
    """

    model: int
    benchmark: str
    items: list[str]


class Contest:
    """What is compared, opened and checked.

    Attributes:
        comparison: with what run folders decide filled in.
        names: of the models, each different.
        checkpoints: the models.
        benchmarks: by name.
        pools: the items of each benchmark that are asked.
        notes: what is worth telling, a line each.
    """

    def __init__(self, comparison: Comparison, cache: Path | None) -> None:
        """Open everything that a comparison names.

        Args:
            comparison: what to compare.
            cache: where fingerprints and merged adapters are kept; None for nowhere.

        Raises:
            InputError: a model or benchmark is missing, or there is nothing to answer.
        """
        self.comparison = with_runs(comparison)
        self.notes = list(notes(comparison, self.comparison))
        trust = comparison.trust_remote_code
        self.checkpoints = [
            open_checkpoint(reference, f"models.{n}", cache=cache, trust_remote_code=trust)
            for n, reference in enumerate(self.comparison.models)
        ]
        self.names = names_of(self.checkpoints)
        keys = [f"benchmarks.{n}" for n in range(len(self.comparison.benchmarks))]
        opened = [
            open_benchmark(
                choice, key, self.comparison.seed, partial(chat_template_of, self.checkpoints)
            )
            for key, choice in zip(keys, self.comparison.benchmarks, strict=True)
        ]
        named = zip(told_apart(opened, keys), opened, strict=True)
        self.benchmarks = {name: replace(benchmark, name=name) for name, benchmark in named}
        self.notes += [note for benchmark in opened for note in benchmark.notes]
        self.pools = {
            name: [i for i in benchmark.items if self.comparison.pool in ("all", i.pool)]
            for name, benchmark in self.benchmarks.items()
        }
        self._held: dict[int, Answerer] = {}

    @property
    def digest(self) -> str:
        """What decides the result: what decides each of its parts, in their order."""
        return canonical_digest([self.part_digest(part) for part in self.parts()])

    @property
    def device(self) -> str:
        """Where models answer."""
        return device_of(self.comparison.compute)

    def dtype(self, model: int) -> str:
        """The type of a model's arithmetic: its own on a GPU, float32 elsewhere."""
        compute = self.comparison.compute
        if compute.dtype != "auto":
            return compute.dtype
        on_gpu = self.device.startswith("cuda") or compute.engine == "vllm"
        return self._own_dtype(model) if on_gpu else "float32"

    def _own_dtype(self, model: int) -> str:
        config = self.checkpoints[model].config
        own = str(config.get("dtype", config.get("torch_dtype")))
        return own if own in DTYPES else "bfloat16"

    def parts(self) -> Iterator[Part]:
        """All that is to be answered, one model after the other."""
        for model in range(len(self.checkpoints)):
            for name, pool in self.pools.items():
                ids = [item.item_id for item in pool]
                for first in range(0, len(ids), _PART):
                    yield Part(model, name, ids[first : first + _PART])

    def part_digest(self, part: Part) -> str:
        """What decides a part's answers: the model's and the items' contents, how they are made.

        The benchmark's name too, since the answers are found in an evaluation by it.
        """
        items = [item.digest for item in self.benchmarks[part.benchmark].find(part.items)]
        compute, batch = self.comparison.compute, texts_together(self.comparison.compute.batch)
        settings = [self.device.split(":")[0], self.dtype(part.model), batch]
        settings += [compute.engine, compute.quantization]
        model = self.checkpoints[part.model].fingerprint
        return canonical_digest([model, {part.benchmark: items}, settings])

    def answer(self, part: Part) -> Evaluation:
        """Let a model answer some items.

        Raises:
            InputError: the model cannot be opened.
        """
        benchmark = self.benchmarks[part.benchmark]
        items = benchmark.find(part.items)
        start = time.perf_counter()
        raw, spent = self._answerer(part.model).answer(items)
        evaluation = nothing_done("ok", None)
        scored = score(benchmark, items, raw)
        evaluation["responses"] = {benchmark.name: [list(response) for response in scored]}
        evaluation["items"] = len(items)
        evaluation["tokens"], evaluation["flops"] = spent.tokens, spent.flops
        evaluation["seconds_answer"] = time.perf_counter() - start
        return evaluation

    def _answerer(self, model: int) -> Answerer:
        """The model in memory, ready to answer; the one before it is let go first."""
        if model not in self._held:
            self._held.clear()
            self._held[model] = self._load(model)
        return self._held[model]

    def _load(self, model: int) -> Answerer:
        checkpoint, compute = self.checkpoints[model], self.comparison.compute
        try:
            resident = ResidentModel(checkpoint, self.device, self.dtype(model))
            _ = resident.tokenizer
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            where = f"models.{model}: {checkpoint.reference}"
            raise InputError(f"{where}: cannot be opened: {reason}") from error
        threads = compute.threads_for(resident.parameter_count)
        if threads is not None:
            torch.set_num_threads(threads)
        if compute.engine == "vllm":
            dtypes, trust = (
                (self.dtype(model), self._own_dtype(model)),
                checkpoint.trust_remote_code,
            )
            return HandedOver(resident, compute.batch, *dtypes, trust_remote_code=trust)
        bits = None if compute.quantization == "none" else compute.quantization
        return Answerer(resident, compute.batch, compute.engine, bits)

    def result(self, responses: pa.Table) -> pa.Table:
        """A row for each model and benchmark (`COMPARISON_SCHEMA`).

        Args:
            responses: of all models to all items.

        Returns:
            Mean scores with 95 % intervals (`mean_score`), and paired differences to the first
            model with theirs (`paired_difference`): 0 for itself.
        """
        models = [checkpoint.fingerprint for checkpoint in self.checkpoints]
        rows = []
        for name, pool in self.pools.items():
            matrix = response_matrix(responses, name, models, [item.item_id for item in pool])
            means, gaps = mean_score(matrix), paired_difference(matrix, matrix[0])
            for number, scored in enumerate((~np.isnan(matrix)).sum(1).tolist()):
                row = {
                    "model": models[number],
                    "name": self.names[number],
                    "reference": self.comparison.models[number],
                    "benchmark": name,
                    "items": scored,
                    "not_scored": len(pool) - scored,
                }
                for prefix, interval in (("", means), ("diff_", gaps)):
                    itself = prefix and number == 0
                    for what, of_all in interval._asdict().items():
                        row[prefix + what] = 0.0 if itself else float(of_all[number])
                row["score"], row["diff"] = row.pop("value"), row.pop("diff_value")
                rows.append(row)
        return pa.Table.from_pylist(rows, schema=COMPARISON_SCHEMA)


def open_contest(comparison: Comparison, cache: Path | None) -> Contest:
    """Open a comparison; the process keeps the last one, so that its model stays in memory."""
    return _opened(comparison.model_dump_json(), cache)


@lru_cache(maxsize=1)
def _opened(comparison_json: str, cache: Path | None) -> Contest:
    return Contest(Comparison.model_validate_json(comparison_json), cache)
