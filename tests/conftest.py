"""What all tests share: the shipped models, a small search on them, one torch thread."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The shipped models, benchmarks and search files."""
    return DATA


def small_search() -> dict[str, Any]:
    """A search file's content that runs in seconds on the shipped models."""
    return {
        "name": "small",
        "base": str(DATA / "zoo" / "base"),
        "endpoints": [str(DATA / "zoo" / "math"), str(DATA / "zoo" / "ja")],
        "merge": {
            "method": "task_arithmetic",
            "layer_groups": 2,
            "parameters": {"weight": {"low": 0.0, "high": 1.5}},
            "export_dtype": "float32",
        },
        "objectives": [
            {
                "benchmark": str(DATA / "benchmarks" / "zoo_ja.yaml"),
                "search_items": 40,
                "fresh_items": 30,
            }
        ],
        "fitness": {"items": 10, "calibration": {"models": 3, "share": 0.5}},
        "evolution": {"algorithm": "cma_es", "population": 4, "generations": 3},
        "finalists": 2,
        "deciding_items": 20,
    }


@pytest.fixture
def search_content() -> dict[str, Any]:
    """A fresh copy of a small search file's content, to be changed at will."""
    return small_search()


@pytest.fixture
def write_search(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Writes a search file's content as YAML; returns its path."""

    def write(content: dict[str, Any]) -> Path:
        path = tmp_path / "search.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write
