"""Whether a search would look at public test data, on which others compare models.

A merge that was chosen on a test set has seen it: its score there says nothing any more. So test
sets are for the end, and a search that takes one has to say so (`allow_test_sets`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mergelib.benchmarks.items import Benchmark
from mergelib.errors import InputError

_LOADERS = {"arrow", "csv", "json", "pandas", "parquet", "text", "xml"}
"""What datasets reads files with, wherever they lie; other names are data sets of the hub."""

_NOT_FOR_TESTS = ("train", "val", "dev")
"""How splits begin that are there to be learnt or chosen from."""

REPORTED = {
    "aps/super_glue": "validation",
    "baber/piqa": "validation",
    "ceval/ceval-exam": "val",
    "EleutherAI/coqa": "validation",
    "EleutherAI/drop": "validation",
    "google-research-datasets/nq_open": "validation",
    "google/IFEval": "train",
    "HuggingFaceH4/aime_2024": "train",
    "Idavidrein/gpqa": "train",
    "lighteval/siqa": "validation",
    "mandarjoshi/trivia_qa": "validation",
    "nyu-mll/blimp": "train",
    "nyu-mll/glue": "validation",
    "Rowan/hellaswag": "validation",
    "tau/commonsense_qa": "validation",
    "truthfulqa/truthful_qa": "validation",
    "allenai/swag": "validation",
    "allenai/winogrande": "validation",
}
"""Data sets without public answers to their test split, and the split that scores are told of
instead: what lm-eval 0.4.13 evaluates in its tasks of these."""


def public_test_data(benchmark: Benchmark, asked_for: str, key: str, allowed: bool) -> str | None:
    """The public test data that a benchmark's search items come from.

    Args:
        benchmark: what the search would look at.
        asked_for: what the search file calls it: a file, or the name of a task of lm-eval's own.
        key: the search file's key that names it, for the message.
        allowed: the search file's `allow_test_sets`.

    Returns:
        "split test of openai/gsm8k", say; None where the items are no public test data: a
        training or validation split that nobody reports scores of, local files, or data that the
        task makes itself.

    Raises:
        InputError: it is public test data, and not allowed.
    """
    source = _test_data(benchmark, own_file=Path(asked_for).is_file())
    if source is not None and not allowed:
        raise InputError(
            f"{key}.benchmark: {benchmark.name} would be searched on public test data ({source}), "
            "and its scores could not be compared any more; give a task with a validation_split "
            "of its own or a file of your own, or set allow_test_sets: true, which the report and "
            "the model card then say"
        )
    return source


def _test_data(benchmark: Benchmark, own_file: bool) -> str | None:
    """The first public test data among the search items' tasks: several of a group."""
    searched = [(benchmark.task_of(item), item.split) for item in benchmark.pool("search")]
    different = {(id(task), split): (task, split) for task, split in searched}
    found = (_of_split(task.config, split, own_file) for task, split in different.values())
    return next((source for source in found if source is not None), None)


def _of_split(config: Any, split: str, own_file: bool) -> str | None:
    source = _public_source(config)
    if source is None:
        return None
    # What lm-eval's own tasks evaluate is what scores are told of, whatever it is called.
    evaluated = split == (config.test_split or config.validation_split)
    is_test = split == config.test_split and not split.startswith(_NOT_FOR_TESTS)
    if is_test or (evaluated and not own_file) or split == REPORTED.get(source):
        return f"split {split} of {source}"
    return None


def _public_source(config: Any) -> str | None:
    """The hub id or address that a task's data comes from; None for files of this machine."""
    path = config.dataset_path
    if not path or config.custom_dataset is not None or Path(path).exists():
        return None
    if path not in _LOADERS:
        return str(path)
    files = (config.dataset_kwargs or {}).get("data_files")
    return next((file for file in _strings(files) if "://" in file), None)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)
