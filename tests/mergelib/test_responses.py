"""Responses from files: both forms, a former run's table, and what is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mergelib.errors import InputError
from mergelib.responses import read_responses
from mergelib.tables import RESPONSE_SCHEMA

ITEMS = ["a", "b", "c"]
WIDE = pd.DataFrame({"model": ["m", "n"], "a": [1, 0], "b": [0.0, None], "c": [True, False]})
EXPECTED = np.array([[1, 0, 1], [0, np.nan, 0]])


def long_form(wide, item="item_id"):
    return wide.melt(id_vars="model", var_name=item, value_name="response").astype(
        {"response": "Float64"}
    )


def write(frame, path):
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
@pytest.mark.parametrize("form", ["wide", "item_id", "item"])
def test_wide_and_long_hold_the_same(tmp_path, form, ending):
    frame = WIDE.astype({"c": int}) if form == "wide" else long_form(WIDE, form)
    found = read_responses(write(frame, tmp_path / f"file{ending}"), ITEMS)
    assert found.models == ("m", "n")
    assert found.items == ("a", "b", "c")
    assert found.threshold is None
    np.testing.assert_array_equal(found.responses, EXPECTED)


def test_true_and_false_are_1_and_0(tmp_path):
    np.testing.assert_array_equal(
        read_responses(write(WIDE, tmp_path / "file.parquet"), ITEMS).responses, EXPECTED
    )


def test_pandas_index_is_a_column(tmp_path):
    path = tmp_path / "file.parquet"
    WIDE.set_index("model").to_parquet(path)
    np.testing.assert_array_equal(read_responses(path, ITEMS).responses, EXPECTED)


def test_columns_come_in_the_order_asked_and_missing_items_are_null(tmp_path):
    found = read_responses(write(WIDE, tmp_path / "file.parquet"), ["c", "d", "a", "b"])
    np.testing.assert_array_equal(found.responses, [[1, np.nan, 1, 0], [0, np.nan, 0, np.nan]])
    everything = read_responses(write(WIDE, tmp_path / "file.parquet"))
    assert everything.items == ("a", "b", "c")


def test_items_kept_for_the_final_scores_are_passed_over(tmp_path):
    path = write(WIDE, tmp_path / "file.parquet")
    found = read_responses(path, ["a"], passed_over=["b", "c"])
    np.testing.assert_array_equal(found.responses, [[1], [0]])


def test_models_without_responses_are_left_out(tmp_path):
    path = write(WIDE, tmp_path / "file.parquet")
    assert read_responses(path, ["b"], passed_over=["a", "c"]).models == ("m",)


def test_one_of_several_benchmarks(tmp_path):
    one, two = long_form(WIDE), long_form(WIDE.assign(a=[0, 0]))
    frame = pd.concat([one.assign(benchmark="x"), two.assign(benchmark="y")])
    path = write(frame, tmp_path / "file.parquet")
    np.testing.assert_array_equal(read_responses(path, ITEMS, benchmark="x").responses, EXPECTED)
    assert read_responses(path, ITEMS, benchmark="y").responses[0, 0] == 0
    with pytest.raises(InputError, match="holds several benchmarks: x, y"):
        read_responses(path, ITEMS)
    with pytest.raises(InputError, match="'z' is not a benchmark of it"):
        read_responses(path, ITEMS, benchmark="z")


def run_file(path, rows):
    filler = {"value": None, "answer": "", "reason": None, "seconds": 0.1}
    entries = [
        {"model": m, "benchmark": "x", "item_id": i, "response": y, **filler} for m, i, y in rows
    ]
    pq.write_table(pa.Table.from_pylist(entries, schema=RESPONSE_SCHEMA), path)
    return path


def test_a_former_run_with_a_candidate_that_came_again(tmp_path):
    rows = [("m", "a", 1), ("m", "b", None), ("n", "a", 0), ("m", "a", 1), ("m", "b", 1)]
    found = read_responses(run_file(tmp_path / "r.parquet", rows), ["a", "b"], benchmark="x")
    np.testing.assert_array_equal(found.responses, [[1, 1], [0, np.nan]])
    clash = run_file(tmp_path / "clash.parquet", [*rows, ("n", "a", 1)])
    with pytest.raises(InputError, match="1 cells occur twice or more: model 'n', item 'a'"):
        read_responses(clash, ["a", "b"], benchmark="x")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            WIDE.assign(d=1, e=1, f=1, g=0),
            r"4 of its items are not of the benchmark \('d', 'e', 'f', ",
        ),
        (pd.concat([WIDE, WIDE]), r"2 models occur twice or more \('m', 'n'\)"),
        (pd.concat([long_form(WIDE)] * 2), "6 cells occur twice or more: model 'm', item 'a'; "),
        (WIDE.assign(a=[1, 2]), "2 for model 'n', item 'a'; allowed are 0, 1 and null"),
        (WIDE.assign(a=[0.5, 0.1]), r"0.5 for model 'm', item 'a' \(1 other cells too\)"),
        (WIDE.assign(a=["1", "no"]), "'no' for model 'n', item 'a'"),
        (long_form(WIDE).assign(response=3), "3 for model 'm', item 'a'"),
        (WIDE.drop(columns="model"), "no column 'model'"),
        (WIDE[["model"]], "none of the benchmark's 3 items"),
        (WIDE.iloc[:0], "every response to the benchmark's items is null"),
        (WIDE.assign(model=["m", None]), "model is null in row 1"),
    ],
)
def test_what_is_refused(tmp_path, frame, message):
    with pytest.raises(InputError, match=message):
        read_responses(write(frame, tmp_path / "file.parquet"), ITEMS)


def test_a_file_that_is_no_table(tmp_path):
    with pytest.raises(InputError, match=r"ends in '.txt'; allowed are .parquet and .csv"):
        read_responses(tmp_path / "file.txt", ITEMS)
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_responses(tmp_path / "none.parquet", ITEMS)
    (tmp_path / "broken.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_responses(tmp_path / "broken.parquet", ITEMS)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_responses(tmp_path / "empty.csv", ITEMS)


def test_scores_are_binarised_when_asked_for(tmp_path):
    frame = WIDE.assign(a=[0.9, 0.4], b=[0.2, None], c=[0.7, 0.1])
    path = write(frame, tmp_path / "file.parquet")
    found = read_responses(path, ITEMS, binarise=True)
    # mean .46: two of five right is closest, so c lies between .4 and .7
    assert found.threshold == pytest.approx(0.55)
    np.testing.assert_array_equal(found.responses, [[1, 0, 1], [0, np.nan, 0]])
    binary = read_responses(write(WIDE, tmp_path / "binary.parquet"), ITEMS, binarise=True)
    assert binary.threshold is None
    beyond = write(frame.assign(a=[1.5, 0.4]), tmp_path / "beyond.parquet")
    with pytest.raises(InputError, match="1.5 for model 'm', item 'a'; allowed are numbers from 0"):
        read_responses(beyond, ITEMS, binarise=True)


def test_scores_are_kept_when_asked_for(tmp_path):
    frame = WIDE.assign(a=[0.9, 0.4], b=[0.2, None], c=[0.7, 0.1])
    path = write(frame, tmp_path / "file.parquet")
    found = read_responses(path, ITEMS, keep_scores=True)
    assert found.threshold is None
    np.testing.assert_array_equal(found.responses, [[0.9, 0.2, 0.7], [0.4, np.nan, 0.1]])
    beyond = write(frame.assign(a=[-0.5, 0.4]), tmp_path / "beyond.parquet")
    with pytest.raises(InputError, match="-0.5 for model 'm', item 'a'; allowed are numbers from"):
        read_responses(beyond, ITEMS, keep_scores=True)


def test_a_former_runs_scores_are_in_its_values(tmp_path):
    rows = [
        ("m", "a", None, 0.25),
        ("m", "b", None, None),
        ("m", "c", 1, 7.0),
        ("m", "a", None, 0.25),
    ]
    columns = [
        dict(zip(("model", "item_id", "response", "value"), row, strict=True)) | {"benchmark": "x"}
        for row in rows
    ]
    path = tmp_path / "responses.parquet"
    pq.write_table(pa.Table.from_pylist(columns, schema=RESPONSE_SCHEMA), path)
    found = read_responses(path, ITEMS, benchmark="x", keep_scores=True)
    np.testing.assert_array_equal(found.responses, [[0.25, np.nan, 1]])
    found = read_responses(path, ITEMS, benchmark="x")
    np.testing.assert_array_equal(found.responses, [[np.nan, np.nan, 1]])
