"""Hands lm-eval the items of the zoo's benchmarks, which lie beside this file."""

from pathlib import Path

from datasets import Dataset
from pyarrow import compute, parquet


def load(language: str, **_metadata) -> dict[str, Dataset]:
    """Read the items of one language ("en", "ja" or "de").

    lm-eval passes `dataset_kwargs` (the language) together with the task's `metadata` and what the
    caller adds to it (the model's name, say), which does not matter here.

    Returns:
        The splits "search" and "fresh".
    """
    items = parquet.read_table(Path(__file__).parent / "items" / f"zoo_{language}.parquet")
    return {
        split: Dataset(items.filter(compute.equal(items["split"], split)))
        for split in ("search", "fresh")
    }
