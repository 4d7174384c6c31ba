"""Time one whole candidate of a search: as mergenetic does it, and as a search here does it.

Usage: python -m benchmarks.candidate [--items N] [--methods NAME...] [--batch N] [--json FILE]

Theirs: mergekit's `run_merge` writes a folder, `from_pretrained` reads it, lm-eval's
`simple_evaluate` asks it, an item at a time as mergenetic does (`--batch`). Ours: the fast backend
merges into a resident model, which answers, and the answers are scored. Two 5-shot tasks, multiple
choice of 4 and generation of 64 tokens, of N items each; random Llamas, stored in bfloat16,
answering in float32; one thread. Each row is one
method, all its columns measured in the same run: seconds of each stage, processor seconds of the
whole (`cpu_*`), and `items_differ`, the items whose score is not the same. `setup_ms` is what goes
neither into merging nor into the model's own arithmetic, for all items together, scoring included.
`seconds_first` is what the first candidate of a search takes here, with everything that is kept for
the others; `ratio` leaves it out, as a search has hundreds of candidates.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.answering import arithmetic, lm_eval_samples, write_tasks, write_tokenizer
from benchmarks.merging import recipe
from benchmarks.models import SIZES, Models, random_models
from benchmarks.rates import Timed, timed
from benchmarks.record import report
from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.items import Benchmark, open_benchmark
from mergelib.benchmarks.scoring import score
from mergelib.checkpoints import open_checkpoint
from mergelib.merging.fast.merger import FastMerger
from mergelib.merging.mergekit import MergekitMerger
from mergelib.merging.resident import ResidentModel
from mergelib.recipes import Recipe
from mergelib.sections.objectives import Objective

METHODS = ("linear", "ties")

THEIR_BATCH = 1
"""mergenetic leaves lm-eval's default: `HFLM(pretrained=model, device=device)`, commit 08a5f4d0,
src/mergenetic/optimization/merging_problem.py."""

ANSWERING = {"cpu": torch.float32, "cuda": torch.bfloat16}
"""The type of the arithmetic while answering, as `compute.dtype: auto` has it."""


def theirs(asked: Recipe, tasks: dict[str, Benchmark], batch: int, device: str) -> dict[str, Timed]:
    """The stages of a candidate, through the disk and lm-eval."""
    with tempfile.TemporaryDirectory() as folder:
        config = MergeConfiguration.model_validate(dict(asked.config))
        options = MergeOptions(quiet=True, cuda=device == "cuda")
        merge = timed(lambda: run_merge(config, folder, options))

        def load() -> tuple[Any, Any]:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=ANSWERING[device])
            return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)

        loaded = timed(load)
        model, tokenizer = loaded.result
        evaluate = timed(
            lambda: [
                sample[benchmark.metric]
                for path, benchmark in tasks.items()
                for sample in lm_eval_samples(model, tokenizer, path, _numbers(benchmark), batch)
            ]
        )
    return {"merge": merge, "load": loaded, "evaluate": evaluate}


def _numbers(benchmark: Benchmark) -> list[int]:
    return sorted(int(item.item_id.split("/")[1]) for item in benchmark.pool("search"))


class Stages(NamedTuple):
    """The stages of a candidate, and the seconds that go neither into merging nor the model."""

    timed: dict[str, Timed]
    setup: float


class Ours:
    """What a search keeps in memory, and the stages of a candidate."""

    def __init__(self, models: Models, tasks: dict[str, Benchmark], device: str) -> None:
        """Load the base model once."""
        names = (models.base, *models.endpoints)
        checkpoints = {name: open_checkpoint(name, name) for name in names}
        dtype = str(ANSWERING[device]).removeprefix("torch.")
        resident = ResidentModel(checkpoints[models.base], device, dtype)
        self._fast = FastMerger(MergekitMerger(checkpoints, seed=0), resident)
        self._answerer = Answerer(resident, "auto")
        self._tasks = list(tasks.values())
        self._device = device

    def stages(self, asked: Recipe) -> Stages:
        """One candidate."""
        parts = [benchmark.pool("search") for benchmark in self._tasks]
        merge = timed(lambda: self._fast.write(asked))
        with arithmetic(self._device) as inside:
            answer = timed(lambda: self._answerer.answer([i for part in parts for i in part])[0])
        answers = iter(answer.result)

        def scores() -> list[float | None]:
            return [
                response.value
                for benchmark, part in zip(self._tasks, parts, strict=True)
                for response in score(benchmark, part, [next(answers) for _ in part])
            ]

        scored = timed(scores)
        setup = answer.own(self._device) - sum(inside) + scored.own(self._device)
        return Stages({"merge": merge, "answer": answer, "score": scored}, setup)


def measure(
    method: str,
    models: Models,
    tasks: dict[str, Benchmark],
    repeats: int,
    batch: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """One row: a method."""
    asked = recipe(method, models)
    ours = Ours(models, tasks, device)
    first = ours.stages(asked)
    # Before theirs and after it: what else the machine does is not always the same.
    runs = [ours.stages(asked) for _ in range(repeats - repeats // 2)]
    their = theirs(asked, tasks, batch, device)
    runs += [ours.stages(asked) for _ in range(repeats // 2)]
    middle = {
        stage: statistics.median(run.timed[stage].wall for run in runs)
        for stage in ("merge", "answer", "score")
    }
    cpu = statistics.median(sum(stage.cpu for stage in run.timed.values()) for run in runs)
    pairs = zip(their["evaluate"].result, runs[0].timed["score"].result, strict=True)
    theirs_whole = sum(stage.wall for stage in their.values())
    return {
        "method": method,
        "their_batch": batch,
        "items": sum(len(benchmark.pool("search")) for benchmark in tasks.values()),
        **{f"seconds_their_{name}": stage.wall for name, stage in their.items()},
        **{f"seconds_{name}": seconds for name, seconds in middle.items()},
        "seconds_theirs": theirs_whole,
        "seconds": sum(middle.values()),
        "seconds_first": sum(stage.wall for stage in first.timed.values()),
        "cpu_theirs": sum(stage.cpu for stage in their.values()),
        "cpu_seconds": cpu,
        "ratio": theirs_whole / sum(middle.values()),
        "ratio_cpu": sum(stage.cpu for stage in their.values()) / cpu,
        "setup_ms": 1e3 * statistics.median(run.setup for run in runs),
        "items_differ": sum(bool(one != other) for one, other in pairs),
    }


def prepare(
    folder: Path, size: str, items: int, device: str = "cpu"
) -> tuple[Models, dict[str, Benchmark]]:
    """Write three models and two tasks."""
    paths = write_tasks(folder, items)
    models = random_models(size, "bfloat16", folder, device)
    for model in (models.base, *models.endpoints):
        write_tokenizer(Path(model), folder, SIZES[size]["vocab_size"])
    objectives = {path: Objective(benchmark=path, search_items=items) for path in paths}
    return models, {p: open_benchmark(o, "tasks", seed=0) for p, o in objectives.items()}


def main() -> None:
    """Measure each method and print the table."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--size", choices=SIZES, default="162M")
    parser.add_argument("--items", type=int, default=30, help="of each task")
    parser.add_argument("--batch", type=int, default=THEIR_BATCH, help="of lm-eval")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models, tasks = prepare(Path(folder), given.size, given.items)
        rows = [
            measure(method, models, tasks, given.repeats, given.batch) for method in given.methods
        ]
    report("candidate", rows, given.json)


if __name__ == "__main__":
    main()
