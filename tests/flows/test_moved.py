"""Models and benchmarks that lie elsewhere when a run goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mergelib.errors import InputError
from mergelib.recipes import Recipe
from mergelib.runs import Run
from mergelib.workbench import _workbench
from tests.conftest import DATA, small_search
from tests.flows.conftest import run_search
from tests.flows.test_evolve import decided


def search_at(folder: Path, generations: int) -> dict[str, Any]:
    content = small_search()
    content["base"] = str(folder / "zoo" / "base")
    content["endpoints"] = [str(folder / "zoo" / name) for name in ("math", "ja")]
    content["objectives"][0]["benchmark"] = str(folder / "benchmarks" / "zoo_ja.yaml")
    content["evolution"]["generations"] = generations
    return content


def without_recipes(run: Run) -> list[Any]:
    return [
        [[{**row, "recipe": None} for row in table] for table in decided(run)[0]],
        [{**row, "recipe": None} for row in decided(run)[1]],
    ]


def test_a_run_goes_on_where_its_models_and_benchmarks_lie_now(
    finished: Run, own_store: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for name in ("zoo", "benchmarks"):
        shutil.copytree(DATA / name, here / name)
    before = json.loads(run_search(search_at(here, 2), own_store).path("ledger.json").read_text())
    here.rename(there)
    run = run_search(search_at(there, 3), own_store)
    assert without_recipes(run) == without_recipes(finished)
    after = json.loads(run.path("ledger.json").read_text())
    assert after["answered"] == before["answered"]
    assert after["answered_twice"] == 0
    for row in run.table("finalists.parquet").to_pylist():
        for model in Recipe.from_yaml(row["recipe"]).models if row["recipe"] else ():
            assert Path(model).is_dir()

    shutil.copytree(DATA / "zoo" / "de", there / "zoo" / "ja", dirs_exist_ok=True)
    _workbench.cache_clear()  # as a new process begins
    with pytest.raises(InputError, match="zoo/ja: has changed since "):
        run_search(search_at(there, 3), own_store)
