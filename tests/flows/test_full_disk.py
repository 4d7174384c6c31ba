"""A whole search on a disk that runs full again and again."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.kills import COMMAND, decided, environment
from mergelib.runs import Run
from tests.conftest import small_search


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


ENDINGS = (
    " are free; make room, and the same command goes on",
    " are free; make room, or write to another disk",
)


def fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def test_a_search_stops_when_the_disk_is_full_and_goes_on_when_there_is_room(
    finished: Run, disk: Path, tmp_path: Path
) -> None:
    search = tmp_path / "search.yaml"
    search.write_text(yaml.safe_dump(small_search()), encoding="utf-8")
    run = Run(disk / "store" / "small")
    command = [*COMMAND, "evolve", str(search), "--store", str(run.folder.parent)]
    # At a generation's end, and where the report is due.
    for file in ("responses/0000.parquet", "finalists.parquet"):
        with subprocess.Popen(
            command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            while process.poll() is None and not run.has(file):
                time.sleep(0.01)
            fill(disk)
            assert process.stderr is not None
            *_, last = process.stderr.read().splitlines()
        assert process.returncode == 2
        assert last.startswith(str(disk / "store"))
        assert "No space left on device: " in last
        # By then the report may be due, or a model to be exported.
        assert last.endswith(ENDINGS)
        for written in run.folder.rglob("*"):
            assert written.name == ".lock" or written.is_dir() or written.stat().st_size
        assert not list(run.folder.rglob("*.partial"))
        (disk / "filler").unlink()
    subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL)
    assert decided(run) == decided(finished)
    assert json.loads(run.path("ledger.json").read_text())["answered_twice"] == 0
