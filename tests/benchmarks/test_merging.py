import json
from pathlib import Path

import pytest

from benchmarks.merging import measure
from benchmarks.record import report


@pytest.mark.parametrize("method", ["task_arithmetic", "slerp"])
def test_both_ways_to_merge_give_the_same_weights(data: Path, tmp_path: Path, method: str) -> None:
    base, *models = (str(data / "zoo" / name) for name in ("base", "math", "ja"))
    row = measure(method, models, base, "bfloat16", repeats=1)
    assert row["max_diff"] == 0
    assert row["seconds_disk"] > 0
    out = tmp_path / "merging.json"
    report("merging", [row], out)
    written = json.loads(out.read_text())
    assert set(written) == {"benchmark", "machine", "versions", "rows"}
    assert written["rows"] == [row]
