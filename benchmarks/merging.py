"""Seconds for one merged model: mergekit to disk and loaded again, against merged in memory.

    python -m benchmarks.merging [--models A B --base C] [--methods linear ...] [--json FILE]

Both merge the same recipe with the same arithmetic, in one run and one process; `max_diff` is the
largest absolute difference between the two results. The first merge of each kind, which also reads
the files, is not counted; of the others the median is.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from transformers import AutoModelForCausalLM

from benchmarks.record import report
from mergelib.checkpoints import open_checkpoint
from mergelib.merging.mergekit import MergekitMerger
from mergelib.merging.methods import is_pairwise, takes_base
from mergelib.merging.resident import ResidentModel
from mergelib.recipes import Recipe
from mergelib.shipped import shipped

PARAMETERS: dict[str, dict[str, Any]] = {
    "linear": {"weight": 0.5},
    "slerp": {"t": 0.4},
    "task_arithmetic": {"weight": 0.5},
    "ties": {"weight": 0.5, "density": 0.6},
    "dare_ties": {"weight": 0.5, "density": 0.6},
    "dare_linear": {"weight": 0.5, "density": 0.6},
}
RANDOM = ("dare_ties", "dare_linear")
"""Their masks differ between the two, and so do the results."""


def recipe(method: str, models: list[str], base: str, dtype: str) -> Recipe:
    """A recipe of the same parameters for all models."""
    config: dict[str, Any] = {"merge_method": method}
    if is_pairwise(method):
        config["base_model"] = models[0]
    elif takes_base(method):
        config["base_model"] = base
    config["models"] = [{"model": model} for model in models]
    return Recipe(
        {**config, "parameters": PARAMETERS[method], "dtype": "float32", "out_dtype": dtype}
    )


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
    """Median wall seconds, median CPU seconds and the last result; the first run does not count."""
    work()
    wall, cpu = [], []
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        result = work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    return statistics.median(wall), statistics.median(cpu), result


def measure(method: str, models: list[str], base: str, dtype: str, repeats: int) -> dict[str, Any]:
    """One row: a method on these models, `dtype` the type of the merged weights."""
    checkpoints = {name: open_checkpoint(name, name) for name in (base, *models)}
    asked = recipe(method, models, base, dtype)

    def to_disk_and_back() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            config = MergeConfiguration.model_validate(dict(asked.config))
            run_merge(config, folder, MergeOptions(quiet=True, copy_tokenizer=False))
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    resident = ResidentModel(checkpoints[base], "cpu", "float32")
    merger = MergekitMerger(checkpoints, seed=0)

    def in_memory() -> None:
        resident.write(merger.merge(asked))

    disk_wall, disk_cpu, loaded = timed(to_disk_and_back, repeats)
    wall, cpu, _ = timed(in_memory, repeats)
    truth = loaded.state_dict()
    gaps = [(v - truth[n]).abs().max().item() for n, v in resident.model.state_dict().items()]
    return {
        "method": method,
        "dtype": dtype,
        "parameters": resident.parameter_count,
        "seconds_disk": disk_wall,
        "cpu_disk": disk_cpu,
        "seconds_mergekit": wall,
        "cpu_mergekit": cpu,
        "ratio_cpu": disk_cpu / cpu,
        "max_diff": "random masks" if method in RANDOM else max(gaps),
    }


def main() -> None:
    """Measure each method and print the table."""
    torch.set_num_threads(1)
    zoo = shipped("zoo")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=[str(zoo / "math"), str(zoo / "ja")])
    parser.add_argument("--base", default=str(zoo / "base"))
    parser.add_argument("--methods", nargs="+", choices=PARAMETERS, default=list(PARAMETERS))
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [
        measure(method, given.models, given.base, given.dtype, given.repeats)
        for method in given.methods
    ]
    report("merging", rows, given.json)


if __name__ == "__main__":
    main()
