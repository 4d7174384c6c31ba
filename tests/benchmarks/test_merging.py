import json
from pathlib import Path

import pytest

from benchmarks.merging import PARAMETERS, Models, bandwidth, measure
from benchmarks.record import report
from mergelib.merging.fast.merger import FAST_METHODS


@pytest.fixture(scope="module")
def copied() -> float:
    return bandwidth()


@pytest.mark.parametrize("method", [*PARAMETERS, "breadcrumbs"])
def test_every_way_to_merge_gives_the_same_weights(
    data: Path, tmp_path: Path, method: str, copied: float
) -> None:
    base, *endpoints = (str(data / "zoo" / name) for name in ("base", "math", "ja"))
    row = measure(method, Models(base, endpoints), 1, copied)
    # A rescaled task vector may round to the neighbouring bfloat16.
    assert row["max_diff"] <= (2**-8 if method.startswith("dare") else 0)
    assert row["seconds_disk"] > 0
    assert (row["seconds_fast"] is not None) == (method in FAST_METHODS)
    out = tmp_path / "merging.json"
    report("merging", [row], out)
    written = json.loads(out.read_text())
    assert set(written) == {"benchmark", "machine", "versions", "rows"}
    assert written["rows"] == [row]


def test_the_fast_methods_are_measured() -> None:
    assert set(PARAMETERS) == FAST_METHODS
