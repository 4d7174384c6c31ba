import json

import numpy as np
import pytest

from benchmarks.calibration import area_under_curve, masked, measure, simulated
from benchmarks.record import report


def test_calibration_is_fast_and_fits_better_than_item_means(tmp_path):
    responses = simulated(400, 500)
    (row,) = measure("simulated", responses, 1, None)
    assert row["cpu_seconds"] < 1
    seen = masked(responses)
    p = np.broadcast_to(np.nanmean(seen, axis=0).clip(0.01, 0.99), seen.shape)
    hidden = np.isnan(seen)
    y, p = responses[hidden], p[hidden]
    assert row["log_loss"] < -np.mean(np.log(np.where(y == 1, p, 1 - p))) - 0.02
    assert row["auc"] > 0.85
    report("calibration", [row], tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == [row]


def test_several_abilities():
    (row,) = measure("simulated", simulated(60, 50), 2, None)
    assert row["dimensions"] == 2
    assert 0 < row["log_loss"] < 0.7


def test_area_under_curve_is_the_share_of_pairs_in_order():
    y, score = np.array([1, 0, 1, 0, 0.0]), np.array([0.9, 0.4, 0.4, 0.2, 0.95])
    # pairs (right, wrong) in order: .9 above .4 and .2; .4 above .2, level with .4
    assert area_under_curve(y, score) == pytest.approx(3.5 / 6)
