"""Seconds for one merged model: by mergekit to disk and loaded again, and in memory.

    python -m benchmarks.merging [--models A B --base C] [--methods ties ...] [--json FILE]

Per method, in one run and one process with one torch thread: mergekit's `run_merge` to disk and
loading model and tokenizer from there (what Mergenetic and mergekit-evolve do for every candidate),
the `mergekit` backend, the `fast` backend, and the limit: the bytes that must move, sources read,
caches read and the model written, over the bandwidth of a copy measured in the same run. A copy
reads what it overwrites first; merges that need not can be faster than that. Seconds are medians;
the first merge of each kind, which also reads the files and computes what is kept, is told apart
(`seconds_first`).

`seconds_disk` and `cpu_disk` are those of a whole candidate; `seconds_disk_weights` and
`cpu_disk_weights` are without the copying and loading of its tokenizer. The in-memory backends have
no such work, since their tokenizer stays. `ratio_cpu` is that of the weights, the lower one;
`ratio_cpu_candidate` that of the whole.

`max_diff` is the largest absolute difference between the fast result (or the `mergekit` backend's,
where there is no fast one) and that of `run_merge` with the same random masks. `kept_mib` is what
the fast backend keeps between merges, `extra_mib` what a merge takes beside it, at its peak.

Without models it makes its own, random Llamas of 9 and 162 million parameters with a byte-level
tokenizer of their vocabulary's size, trained on random words.
"""

import argparse
import gc
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mergekit import merge as mergekit_merge
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
from mergekit.options import MergeOptions
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.models import DTYPES, SIZES, Models, random_models
from benchmarks.rates import bandwidth, clocks
from benchmarks.record import report
from mergelib.checkpoints import Checkpoint, open_checkpoint
from mergelib.merging.fast.merger import FAST_METHODS, FastMerger
from mergelib.merging.mergekit import MergekitMerger
from mergelib.merging.methods import is_pairwise, merge_methods, takes_base
from mergelib.merging.resident import ResidentModel
from mergelib.recipes import Recipe

PARAMETERS: dict[str, dict[str, Any]] = {
    "linear": {"weight": 0.5},
    "slerp": {"t": 0.4},
    "task_arithmetic": {"weight": 0.5},
    "ties": {"weight": 0.5, "density": 0.6},
    "dare_ties": {"weight": 0.5, "density": 0.6},
    "dare_linear": {"weight": 0.5, "density": 0.6},
}
OTHERS: dict[str, dict[str, Any]] = {
    "breadcrumbs": {"weight": 0.5, "density": 0.6},
    "breadcrumbs_ties": {"weight": 0.5, "density": 0.6},
    "della": {"weight": 0.5, "density": 0.6},
    "della_linear": {"weight": 0.5, "density": 0.6},
    "multislerp": {"weight": 0.5},
    "nearswap": {"t": 0.01},
    "nuslerp": {"weight": 0.5},
    "sce": {"select_topk": 0.5},
}
"""What the methods that only the `mergekit` backend has cannot do without."""


def recipe(method: str, models: Models) -> Recipe:
    """A recipe of the same parameters for all models, rounded to bfloat16 as a search does."""
    config: dict[str, Any] = {"merge_method": method}
    if is_pairwise(method):
        config["base_model"] = models.endpoints[0]
    elif takes_base(method):
        config["base_model"] = models.base
    config["models"] = [{"model": model} for model in models.endpoints]
    if method == "passthrough":
        config["models"] = config["models"][:1]
    config["parameters"] = (PARAMETERS | OTHERS).get(method, {})
    return Recipe({**config, "dtype": "float32", "out_dtype": "bfloat16"})


class Timed(NamedTuple):
    """Seconds of repeated work: of the first, medians of the others, and without a part of it."""

    first: float
    wall: float
    cpu: float
    rest_wall: float
    rest_cpu: float
    result: Any


class Aside:
    """Tells a part of some work apart: the seconds of all times that it was done."""

    def __init__(self) -> None:
        """Begin with none."""
        self.spent = torch.zeros(2, dtype=torch.float64)

    def of(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same, and whose seconds are added up."""

        def measured(*given: Any, **named: Any) -> Any:
            start = clocks()
            result = part(*given, **named)
            self.spent = self.spent + clocks() - start
            return result

        return measured


def timed(work: Callable[[], Any], repeats: int, aside: Aside | None = None) -> Timed:
    """Do some work once, and then `repeats` times."""
    aside = aside or Aside()
    times = []
    for _ in range(1 + repeats):
        start, apart = clocks(), aside.spent
        result = work()
        took = clocks() - start
        times.append([*took.tolist(), *(took - (aside.spent - apart)).tolist()])
    wall, cpu, *rest = (statistics.median(column) for column in zip(*times[1:], strict=True))
    return Timed(times[0][0], wall, cpu, rest[0], rest[1], result)


def bytes_to_move(
    method: str, checkpoints: dict[str, Checkpoint], asked: Recipe, written: int = 4
) -> int:
    """Each source and each kept number read once, each parameter of so many bytes written once."""
    total = 0
    for name in asked.models:
        total += sum(tensor.nbytes for _, tensor in checkpoints[name].tensors())
    count = sum(tensor.numel() for _, tensor in checkpoints[asked.models[0]].tensors())
    masks = 2 if "density" in PARAMETERS.get(method, {}) else 0
    return total + count * (written + 4 * masks)


@contextmanager
def the_same_masks(merger: MergekitMerger, asked: Recipe) -> Iterator[None]:
    """Let mergekit's executor draw the random masks that the in-memory backends draw."""
    planned = {tensor.name: tensor for tensor in merger.plan(asked).tensors}
    execute = ExecuteMergeMethodTask.execute

    def seeded(task: Any, **inputs: Any) -> Any:
        with merger.seeded(asked, planned[task.output_weight.name]):
            return execute(task, **inputs)

    with patch.object(ExecuteMergeMethodTask, "execute", seeded):
        yield


def extra_memory(work: Callable[[], Any]) -> int:
    """The most bytes of memory, mapped files not counted, that some work takes at a time."""
    done = threading.Event()
    before = peak = _anonymous()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.0005):
            peak = max(peak, _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return peak - before


def _anonymous() -> int:
    status = Path("/proc/self/status").read_text("utf-8")
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def measure(method: str, models: Models, repeats: int, copied: float) -> dict[str, Any]:
    """One row: a method on these models."""
    names = (models.base, *models.endpoints)
    checkpoints = {name: open_checkpoint(name, name) for name in names}
    asked = recipe(method, models)
    resident = ResidentModel(checkpoints[models.base], "cpu", "float32")
    merger = MergekitMerger(checkpoints, seed=0)
    fast = FastMerger(merger, resident) if method in FAST_METHODS else None

    # What is loaded by now stays: the collector need not walk through it while others are timed.
    gc.collect()
    gc.freeze()

    of_tokenizers = Aside()
    copying = of_tokenizers.of(mergekit_merge._copy_tokenizer)
    loading = of_tokenizers.of(AutoTokenizer.from_pretrained)

    def to_disk_and_back() -> Any:
        with tempfile.TemporaryDirectory() as folder, the_same_masks(merger, asked):
            config = MergeConfiguration.model_validate(dict(asked.config))
            with patch.object(mergekit_merge, "_copy_tokenizer", copying):
                run_merge(config, folder, MergeOptions(quiet=True))
            loading(folder)
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    disk = timed(to_disk_and_back, min(repeats, 2), of_tokenizers)
    in_memory = timed(lambda: resident.write(merger.merge(asked)), min(repeats, 2))
    quick = None if fast is None else timed(lambda: fast.write(asked), repeats)
    limit = bytes_to_move(method, checkpoints, asked) / copied
    truth = disk.result.state_dict()
    gaps = [(v - truth[n]).abs().max().item() for n, v in resident.model.state_dict().items()]
    tensor = next(iter(checkpoints[models.base].tensors()))[1]
    return {
        "method": method,
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "parameters": resident.parameter_count,
        "seconds_disk": disk.wall,
        "cpu_disk": disk.cpu,
        "seconds_disk_weights": disk.rest_wall,
        "cpu_disk_weights": disk.rest_cpu,
        "seconds_mergekit": in_memory.wall,
        "cpu_mergekit": in_memory.cpu,
        "seconds_first": None if quick is None else quick.first,
        "seconds_fast": None if quick is None else quick.wall,
        "cpu_fast": None if quick is None else quick.cpu,
        "ratio_cpu": disk.rest_cpu / (quick or in_memory).cpu,
        "ratio_cpu_candidate": disk.cpu / (quick or in_memory).cpu,
        "seconds_limit": limit,
        "over_limit": (quick or in_memory).cpu / limit,
        "max_diff": max(gaps),
        "kept_mib": None if fast is None else fast.kept.size / 2**20,
        "extra_mib": None if fast is None else extra_memory(lambda: fast.write(asked)) / 2**20,
    }


def main() -> None:
    """Measure each method and print the table."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", help="folders of models to merge")
    parser.add_argument("--base", help="the model that they were fine-tuned from")
    parser.add_argument(
        "--methods", nargs="+", choices=sorted(merge_methods()), default=list(PARAMETERS)
    )
    parser.add_argument(
        "--sizes", nargs="+", choices=SIZES, default=["9M", "162M"], help="of random models"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="bfloat16", help="that random models are stored in"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if bool(given.models) != bool(given.base):
        parser.error("--models and --base go together")
    copied = bandwidth()
    rows: list[dict[str, Any]] = []

    def measure_all(models: Models) -> None:
        rows.extend(measure(m, models, given.repeats, copied) for m in given.methods)

    if given.models:
        measure_all(Models(given.base, given.models))
    else:
        for size in given.sizes:
            with tempfile.TemporaryDirectory() as folder:
                measure_all(random_models(size, given.dtype, Path(folder)))
    report("merging", rows, given.json)


if __name__ == "__main__":
    main()
