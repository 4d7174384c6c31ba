"""The benchmark of whole searches, on a search that takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from tests.conftest import small_search


def test_each_way_of_a_search_is_run_and_summed_up(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small_search()))
    command = [
        *(sys.executable, "-m", "benchmarks.search", "--merges", str(file), "--seeds", "1"),
        *("--ways", "default", "racing", "--population", "4", "--candidates", "8"),
        *("--json", str(tmp_path / "out.json")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "out.json").read_text())
    default, racing = record["rows"]
    assert (default["algorithm"], racing["algorithm"]) == ("default", "racing")
    assert default["candidates"] == racing["candidates"] == 8
    assert 0 < racing["answers"] < default["answers"] <= 80
    assert 0 <= default["fresh_score"] <= 1
    assert default["hypervolume"] is None
    assert "medians" not in record["benchmark"]
    picture = (tmp_path / "out.svg").read_text()
    assert all(name in picture for name in ("default", "racing", "best uniform merge"))
