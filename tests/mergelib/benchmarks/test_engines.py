from typing import Any

import pytest
import torch

from mergelib.benchmarks.engines import why_not
from mergelib.search import parse_search


@pytest.mark.parametrize(
    ("compute", "error", "said"),
    [
        ({}, torch.OutOfMemoryError("out of\nmemory"), "compute.device: cpu has too little memory"),
        ({}, RuntimeError("no\nkernel"), "compute.device: cpu cannot do it: no kernel"),
        ({"engine": "vllm"}, RuntimeError("no\nGPU"), "compute.engine: vllm: no GPU"),
    ],
)
def test_an_engines_error_is_one_line(
    search_content: dict[str, Any], compute: Any, error: RuntimeError, said: str
) -> None:
    search_content["compute"] = {"device": "cpu", **compute}
    line = why_not(parse_search(search_content, "here"), error)
    assert line.startswith(said)
    assert "\n" not in line
