"""What a GPU makes of merging and answering, and what happens when its memory runs out.

Usage: python -m benchmarks.gpu [--device cuda] [--sizes 1B] [--dtypes bfloat16 float32]
    [--parts merging answering memory candidate] [--items N] [--repeats N] [--json FILE]

Random Llamas and two 5-shot tasks are made in place (see `benchmarks.answering`); Prefect is not
needed. Each part prints its own table, all columns measured in the same run:

merging: for each fast method `ms` (median) and `ms_first` (reads the files, and computes what is
kept), the bytes that must move in GB a second, and `copy_share`, that rate as a share of a device
copy measured in the same run. `same_again`: a recipe is merged, another one, and the first again,
and all weights are the same bits. `as_mergekit`: a sample of the tensors is what mergekit's own
arithmetic makes of it on the processor. `kept_gib` stays between merges, `peak_gib` is the most.
answering: the columns of `benchmarks.answering`, and `peak_gib`. In 16-bit types kernels round by
shape, so some scores of random models differ; in float32 none should.
memory: the same questions with less and less memory for the answers; `halvings` is how many times
the batch was halved, `items_differ` counts scores that are not those without a limit. GPUs only.
candidate: the columns of `benchmarks.candidate`: a whole candidate, both ways.
"""

import argparse
import gc
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks import answering, candidate
from benchmarks.merging import PARAMETERS, bytes_to_move, recipe
from benchmarks.models import DTYPES, SIZES, Models
from benchmarks.rates import bandwidth, gemm_rate, timed
from benchmarks.record import report
from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.choices import Loglikelihoods
from mergelib.benchmarks.generation import Generations
from mergelib.benchmarks.items import Benchmark
from mergelib.checkpoints import Checkpoint, open_checkpoint
from mergelib.errors import MergeError
from mergelib.merging.fast.merger import FastMerger
from mergelib.merging.mergekit import MergekitMerger
from mergelib.merging.resident import ResidentModel
from mergelib.recipes import Recipe

PARTS = ("merging", "answering", "memory", "candidate")
SHARES = (1.0, 0.5, 0.2)
"""How much memory the answers get, of what they take without a limit."""


class Bench:
    """Models and tasks in a folder, and a resident model of one type on a device."""

    def __init__(
        self, models: Models, tasks: dict[str, Benchmark], device: str, dtype: str
    ) -> None:
        """Load the base model."""
        self.models, self.tasks, self.device, self.dtype = models, tasks, device, dtype
        names = (models.base, *models.endpoints)
        self.checkpoints: dict[str, Checkpoint] = {n: open_checkpoint(n, n) for n in names}
        self.resident = ResidentModel(self.checkpoints[models.base], device, dtype)
        self.mergekit = MergekitMerger(self.checkpoints, seed=0)

    def merging(self, method: str, repeats: int, copied: float) -> dict[str, Any]:
        """One method's row."""
        asked = recipe(method, self.models)
        fast = FastMerger(self.mergekit, self.resident)
        with peak_memory(self.device) as peak:
            first = timed(lambda: fast.write(asked)).wall
            wall = statistics.median(timed(lambda: fast.write(asked)).wall for _ in range(repeats))
        written = DTYPES[self.dtype].itemsize
        moved = bytes_to_move(method, self.checkpoints, asked, written)
        return {
            "part": "merging",
            "method": method,
            "dtype": self.dtype,
            "parameters": self.resident.parameter_count,
            "ms_first": 1e3 * first,
            "ms": 1e3 * wall,
            "gb_per_second": moved / wall / 1e9,
            "copy_share": moved / wall / copied,
            "same_again": self._same_again(fast, asked),
            "as_mergekit": _holds(lambda: fast.check(asked)),
            "kept_gib": fast.kept.size / 2**30,
            "left_out_gib": fast.kept.left_out / 2**30,
            "peak_gib": peak[0],
        }

    def _same_again(self, fast: FastMerger, asked: Recipe) -> bool:
        """Whether a recipe gives the same bits after another one; the model then holds it."""
        before = self._weights()
        fast.write(_another(asked))
        moved = any(not torch.equal(value, before[n]) for n, value in self._weights().items())
        fast.write(asked)
        again = self._weights()
        return moved and all(torch.equal(value, before[name]) for name, value in again.items())

    def _weights(self) -> dict[str, torch.Tensor]:
        named = self.resident.model.named_parameters()
        return {name: value.detach().to("cpu", copy=True) for name, value in named}

    def answering(self, repeats: int, peak_rate: float) -> Iterator[dict[str, Any]]:
        """A row for each task."""
        for path, benchmark in self.tasks.items():
            items = len(benchmark.pool("search"))
            with peak_memory(self.device) as peak:
                row = answering.measure(self.resident, path, items, repeats, peak_rate)
            yield {"part": "answering", "dtype": self.dtype, **row, "peak_gib": peak[0]}

    def memory(self) -> Iterator[dict[str, Any]]:
        """A row for each task and share of memory."""
        for benchmark in self.tasks.values():
            asked = benchmark.pool("search")
            answering.candidate(Answerer(self.resident, "auto"), benchmark, asked)
            held = _reserved()
            torch.cuda.reset_peak_memory_stats()
            free = answering.candidate(Answerer(self.resident, "auto"), benchmark, asked)[2]
            taken = torch.cuda.max_memory_reserved() - held
            for share in SHARES:
                yield {
                    "part": "memory",
                    "task": benchmark.name,
                    "dtype": self.dtype,
                    "share": share,
                    "answers_gib": share * taken / 2**30,
                    **self._within(held + share * taken, benchmark, free),
                }

    def _within(self, limit: float, benchmark: Benchmark, free: list[Any]) -> dict[str, Any]:
        """Answer with a limit of bytes; whether the scores are those without it."""
        asked = benchmark.pool("search")
        answerer = Answerer(self.resident, "auto")
        answerer.answer(asked[:1])
        _reserved()
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(limit / total)
        try:
            with halvings() as halved:
                run = timed(lambda: answering.candidate(answerer, benchmark, asked)[2])
        except torch.OutOfMemoryError:
            return {"seconds": None, "halvings": len(halved), "items_differ": None}
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        differ = sum(one != other for one, other in zip(run.result, free, strict=True))
        return {"seconds": run.wall, "halvings": len(halved), "items_differ": differ}


@contextmanager
def peak_memory(device: str) -> Iterator[list[float | None]]:
    """Collect the most memory of a GPU that some work held at a time, in GiB; None on others."""
    found: list[float | None] = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    yield found
    found.append(torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None)


@contextmanager
def halvings() -> Iterator[list[str]]:
    """Collect the batches that were laid out anew, as memory ran out, after the first time."""
    found: list[str] = []

    def watched(work: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(job: Any) -> None:
            # The first time, the job is being made and has no layout yet.
            if hasattr(job, "_laid_out") or hasattr(job, "_batches"):
                found.append(type(job).__name__)
            work(job)

        return call

    with (
        patch.object(Generations, "_divide", watched(Generations._divide)),
        patch.object(Loglikelihoods, "_lay_out", watched(Loglikelihoods._lay_out)),
    ):
        yield found


def _reserved() -> int:
    """Bytes of a GPU that are held for good, in blocks, as limits count them."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def _another(asked: Recipe) -> Recipe:
    """A recipe with smaller parameters, and weights that differ between models."""
    config = dict(asked.config)
    config["parameters"] = {name: value / 2 for name, value in config["parameters"].items()}
    if "weight" in config["parameters"]:
        config["models"] = [
            {**model, "parameters": {"weight": 0.2 + 0.5 * number}}
            for number, model in enumerate(config["models"])
        ]
    return Recipe(config)


def _holds(check: Callable[[], None]) -> bool:
    try:
        check()
    except MergeError:
        return False
    return True


def measure(given: argparse.Namespace, size: str, folder: Path) -> Iterator[dict[str, Any]]:
    """All rows of the models of one size."""
    models, tasks = candidate.prepare(folder, size, given.items, given.device)
    copied = bandwidth(given.device)
    for dtype in given.dtypes:
        bench = Bench(models, tasks, given.device, dtype)
        if "merging" in given.parts:
            for method in given.methods:
                yield bench.merging(method, given.repeats, copied)
        if "answering" in given.parts:
            yield from bench.answering(given.repeats, gemm_rate(given.device, DTYPES[dtype]))
        if "memory" in given.parts and given.device == "cuda":
            yield from bench.memory()
        del bench
        gc.collect()
    if "candidate" in given.parts:
        for method in candidate.METHODS:
            row = candidate.measure(
                method, models, tasks, given.repeats, candidate.THEIR_BATCH, given.device
            )
            yield {"part": "candidate", **row}


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1B"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["bfloat16"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--methods", nargs="+", choices=PARAMETERS, default=list(PARAMETERS))
    parser.add_argument("--items", type=int, default=30, help="of each task")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and tell each row as soon as it is known: a lease may end before the last one."""
    given = parsed(arguments)
    if given.device == "cpu":
        torch.set_num_threads(1)
    rows = []
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(given, size, Path(folder)):
                rows.append({"size": size, **row})
                print(rows[-1], flush=True)
                if given.json is not None:
                    report("gpu", rows, given.json, shown=False)
    report("gpu", rows, given.json)


if __name__ == "__main__":
    main()
