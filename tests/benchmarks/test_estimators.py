"""The estimators' benchmark on simulated models, and its bars on real ones where they are here."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit

from benchmarks.estimators import clustered_error, main, measure
from benchmarks.matrices import read_matrix, read_parents
from mergelib.errors import InputError
from mergelib.irt.selection import SELECTIONS

RESPONSES = Path(__file__).parents[3] / "shared" / "responses"


def write(path, models=40, items=60, seed=0):
    """Made-up models m0, m1, ..., with a null cell, the names in the last column."""
    rng = np.random.default_rng(seed)
    p = expit(np.outer(rng.standard_normal(models), np.ones(items)) - rng.normal(0, 1, items))
    columns = {
        f"q{n}": pa.array((rng.random(models) < p[:, n]).astype("int8")) for n in range(items)
    }
    columns["q0"] = pa.array([None, *columns["q0"].to_pylist()[1:]], pa.int8())
    columns["model"] = pa.array([f"m{n}" for n in range(models)])
    pq.write_table(pa.table(columns), path)
    return path


def test_the_command_prints_and_writes_rows_and_figures(tmp_path, monkeypatch, capsys):
    out = tmp_path / "estimators.json"
    arguments = ["--responses", str(write(tmp_path / "r.parquet")), "--json", str(out)]
    sizes = ["--items", "5", "10", "500", "--draws", "2"]
    monkeypatch.setattr(sys, "argv", ["estimators", *arguments, *sizes])
    main()
    assert "parent_irt" in capsys.readouterr().out
    record = json.loads(out.read_text())
    assert record["benchmark"] == "estimators"
    needed = ["estimator", "selection", "items", "mae", "mae_se", "tau", "regret"]
    for row in record["rows"]:
        assert list(row)[:9] == [*needed, "coverage", "width"]
        assert row["items"] in (5, 10)
        assert 0 <= row["coverage"] <= 1
        assert row["mae"] >= 0
        assert row["mae_se"] > 0
    found = {(row["estimator"], row["selection"]) for row in record["rows"]}
    without = set(SELECTIONS) - {"stratified"}
    assert {s for e, s in found if e == "gp_irt_c0.5"} == without
    for name in ("mae", "ability_error", "coverage"):
        assert (tmp_path / f"estimators_{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_children_are_held_out_and_know_their_parents(tmp_path):
    matrix = read_matrix(write(tmp_path / "r.parquet"))
    family = tmp_path / "parents.csv"
    family.write_text("child,parent1,parent2,parent3\nm5,m1,m2,\nm6,m2,m1,\nm7,m1,m2,m3\n")
    groups = read_parents(family, matrix)
    assert [(group.rows.tolist(), group.parents) for group in groups] == [
        ([5, 6], [1, 2]),
        ([7], [1, 2, 3]),
    ]
    rows = measure(matrix, family=groups, sizes=[8], draws=2)
    assert {"mp_irt", "gmp_irt"} <= {row["estimator"] for row in rows}
    assert {row["selection"] for row in rows} == set(SELECTIONS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("child,parent1\nm5,m77\n", "m77"),
        ("child,parent1\nm5,\n", "no known child with parents"),
        ("m5,m1,m2\nm6,m1,m2\n", "not with child, parent1"),
        ("", "not with child, parent1"),
        ("child,parent1\n\n", "no children"),
        ("child,parent1,parent2\nm5,m1,m2\nm5,m1,m3\n", "names a model again"),
        ("child,parent1,parent2\nm5,m1,m1\n", "names a model again"),
        ("child,parent1,parent2\nm5,m1,m2\nm6,m5,m2\n", "models that are both: m5"),
    ],
)
def test_a_family_that_cannot_be_is_refused(tmp_path, text, says):
    matrix = read_matrix(write(tmp_path / "r.parquet"))
    family = tmp_path / "parents.csv"
    family.write_text(text)
    with pytest.raises(InputError, match=says):
        read_parents(family, matrix)


@pytest.mark.parametrize("dimensions", ["1", "2"])
def test_the_command_asks_children_of_a_family(tmp_path, monkeypatch, capsys, dimensions):
    out = tmp_path / "family.json"
    family = tmp_path / "parents.csv"
    lines = [f"m{n},m1, m2" for n in range(5, 15)] + ["m15,m3,m4"]
    family.write_text("\n".join(["child,parent1,parent2", *lines, ""]))
    matrix = ["--responses", str(write(tmp_path / "r.parquet")), "--parents", str(family)]
    sizes = ["--items", "8", "--draws", "2", "--dimensions", dimensions, "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["estimators", *matrix, *sizes])
    main()
    assert "gmp_irt" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    found = {(row["estimator"], row["selection"]): row for row in rows}
    assert {selection for _, selection in found} == set(SELECTIONS)
    assert {name for name, _ in found} >= {"mean", "p_irt", "mp_irt", "gmp_irt", "parent_irt"}
    assert all(0 <= row["mae"] < 40 for row in rows)
    assert (found["parent_irt", "random"]["ability_error"] is None) == (dimensions == "2")


def test_clustered_error_is_the_plain_one_without_clusters_and_more_with():
    rng = np.random.default_rng(1)
    values = rng.standard_normal(300)
    alone = np.arange(300)
    plain = values.std(ddof=1) / np.sqrt(300)
    assert clustered_error(values, alone, alone) == pytest.approx(plain)
    # 20 draws that share half their variance, of 30 models each
    draws = np.repeat(np.arange(20), 30)
    means = [(rng.standard_normal(20)[draws] + rng.standard_normal(600)).mean() for _ in range(400)]
    one = rng.standard_normal(20)[draws] + rng.standard_normal(600)
    found = clustered_error(one, np.tile(np.arange(30), 20), draws)
    assert found == pytest.approx(np.std(means), rel=0.5)


def test_what_is_no_matrix_is_refused(tmp_path):
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"q0": [0, 1], "q1": [1, 1]}), path)
    with pytest.raises(InputError, match="names the models"):
        read_matrix(path)
    pq.write_table(pa.table({"model": ["a"], "q0": [0], "q1": [1]}), path)
    with pytest.raises(InputError, match="too few"):
        read_matrix(path)


@pytest.mark.parametrize(
    ("name", "against", "share"),
    [
        ("arc_challenge", "gp_irt_c0.5", 0.85),
        ("musr", "mean", 0.5),
    ],
)
def test_on_held_out_real_models_parent_irt_keeps_its_bars(name, against, share, monkeypatch):
    path = RESPONSES / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"no real response matrix {path.name}: shared/responses is absent")
    monkeypatch.setattr("benchmarks.estimators.SELECTIONS", {"random": SELECTIONS["random"]})
    # With 20 draws of items it is 30 and 70 % less (standard error 3); here are 4.
    rows = {row["estimator"]: row for row in measure(read_matrix(path), sizes=[20], draws=4)}
    assert rows["parent_irt"]["mae"] < share * rows[against]["mae"]
    assert 0.92 < rows["parent_irt"]["coverage"] < 0.98
