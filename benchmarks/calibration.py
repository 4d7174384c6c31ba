"""CPU seconds and held-out fit of the item bank's calibration, against py-irt's in the same run.

    python -m benchmarks.calibration [--responses FILE.parquet] [--dimensions 1 5] [--json FILE]

A fifth of the cells is masked at random; both programs calibrate on the others, and `log_loss` (in
nats) and `auc` are those of the probabilities that they give the masked cells. `cpu_seconds` is of
the calibration alone, with one thread: py-irt's is that of its training, without its imports and
the reading of its data, with the settings that tinyBenchmarks and MERGE3 publish (hierarchical
priors, 2000 epochs). `ratio` is py-irt's over ours.

py-irt asks for older versions of typer, rich and pandas than this project: the command installs it
into a virtual environment of its own, which is kept nowhere, and which takes torch from here.
`--py-irt PYTHON` names an interpreter that has it already; `--no-py-irt` leaves it out.

Without responses it simulates 400 models and 500 items of a two-parameter logistic model.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

from benchmarks.record import report
from mergelib.irt.ability import gaussian_weights, posterior
from mergelib.irt.bank import FloatArray, calibrate
from mergelib.irt.multidimensional import calibrate_dimensions
from mergelib.responses import read_responses

PY_IRT = "py-irt==0.7.1"
EPOCHS = 2000
HELD_OUT = 0.2

# Runs in the environment that has py-irt. Arguments: the data, the result, dimensions, epochs.
_TRAIN = """
import json, sys, time
from pathlib import Path
import pyro, torch
from py_irt.config import IrtConfig
from py_irt.training import IrtModelTrainer
data, out, dimensions, epochs = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
torch.set_num_threads(1)
pyro.set_rng_seed(0)
config = IrtConfig(
    model_type="2pl" if dimensions == 1 else "multidim_2pl",
    dims=None if dimensions == 1 else dimensions,
    priors="hierarchical",
    epochs=epochs,
)
trainer = IrtModelTrainer(data_path=data, config=config, verbose=False)
start = time.process_time()
trainer.train(device="cpu")
seconds = time.process_time() - start
out.write_text(json.dumps({"seconds": seconds, **trainer.last_params}))
"""


class Fit(NamedTuple):
    """Probabilities (models, items) of every cell, and the CPU seconds that they took."""

    probabilities: FloatArray
    cpu_seconds: float


def simulated(models: int, items: int, seed: int = 0) -> FloatArray:
    """Responses (models, items) of 0 and 1 from known abilities and item parameters."""
    random = np.random.default_rng(seed)
    gamma = random.standard_normal(models)
    alpha = np.exp(random.normal(0.2, 0.4, items))
    beta = random.normal(0.0, 1.5, items)
    p = expit(np.outer(gamma, alpha) - beta)
    return (random.random(p.shape) < p).astype(np.float64)


def masked(responses: FloatArray, seed: int = 0) -> FloatArray:
    """A copy with a fifth of its cells NaN."""
    hidden = np.random.default_rng([seed, 1]).random(responses.shape) < HELD_OUT
    return np.where(hidden, np.nan, responses)


def ours(responses: FloatArray, dimensions: int) -> Fit:
    """Calibrate; with one dimension a cell's probability is its mean over the posterior."""
    items = [str(number) for number in range(responses.shape[1])]
    start = time.process_time()
    if dimensions == 1:
        bank = calibrate(responses, items).bank
        seconds = time.process_time() - start
        weights = posterior(responses, bank, gaussian_weights(0.0, 1.0))
        grid = np.linspace(-6.0, 6.0, weights.shape[1])
        return Fit(weights @ bank.probability(grid), seconds)
    found = calibrate_dimensions(responses, items, dimensions)
    seconds = time.process_time() - start
    return Fit(found.bank.probability(found.abilities), seconds)


def py_irt(responses: FloatArray, dimensions: int, python: str, epochs: int = EPOCHS) -> Fit | None:
    """Let py-irt calibrate in the environment of another interpreter.

    Args:
        responses: (models, items) of 0, 1 or NaN; each model and each item has one that is not.
        dimensions: of ability.
        python: an interpreter that has py-irt.
        epochs: of its training.

    Returns:
        None where its training fails: its parameters can become NaN on the way.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder, "data.jsonlines"), Path(folder, "fit.json")
        lines = []
        for model, row in enumerate(responses):
            seen = {str(item): int(y) for item, y in enumerate(row) if not np.isnan(y)}
            lines.append(json.dumps({"subject_id": str(model), "responses": seen}) + "\n")
        data.write_text("".join(lines), encoding="utf-8")
        arguments = [python, "-c", _TRAIN, str(data), str(out), str(dimensions), str(epochs)]
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(
            arguments, env=os.environ | one_thread, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"py-irt failed with D = {dimensions}: {_error(done.stderr)}", file=sys.stderr)
            return None
        fit = json.loads(out.read_text(encoding="utf-8"))
    ability, slope, difficulty = (
        np.asarray(fit[name], dtype=np.float64).reshape(len(fit[name]), -1)
        for name in ("ability", "disc", "diff")
    )
    models = np.array([int(fit["subject_ids"][str(n)]) for n in range(len(ability))])
    items = np.array([int(fit["item_ids"][str(n)]) for n in range(len(slope))])
    probabilities = np.full(responses.shape, 0.5)
    # logit p = sum_d disc_d (ability_d - diff_d)
    z = ability @ slope.T - (slope * difficulty).sum(1)
    probabilities[np.ix_(models, items)] = expit(z)
    return Fit(probabilities, float(fit["seconds"]))


@contextmanager
def installed_py_irt() -> Iterator[str]:
    """A virtual environment with py-irt, and what it finds here, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "bin", "python"))
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        own = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
        # Looked into after the environment's own packages: torch need not be fetched again.
        beside = Path(own.stdout.strip(), "beside.pth")
        beside.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        command = [python, "-m", "pip", "install", "--quiet", PY_IRT]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{PY_IRT} cannot be installed: {done.stderr[-2000:]}")
        yield python


def _error(stderr: str) -> str:
    """The line of a traceback that names the error."""
    named = re.findall(r"^\w*Error: .*", stderr, re.MULTILINE)
    return (named[-1] if named else stderr[-200:])[:200]


def row(
    program: str,
    data: str,
    dimensions: int,
    responses: FloatArray,
    seen: FloatArray,
    fit: Fit | None,
) -> dict[str, Any]:
    """One record: how well the masked cells are told, and what that took; None where it failed."""
    record = {
        "program": program,
        "data": data,
        "dimensions": dimensions,
        "models": responses.shape[0],
        "items": responses.shape[1],
    }
    if fit is None:
        return record | dict.fromkeys(("cpu_seconds", "log_loss", "auc"))
    hidden = ~np.isnan(responses) & np.isnan(seen)
    y = responses[hidden]
    p = np.clip(fit.probabilities[hidden], 1e-12, 1 - 1e-12)
    return record | {
        "cpu_seconds": fit.cpu_seconds,
        "log_loss": float(-np.mean(np.where(y == 1, np.log(p), np.log1p(-p)))),
        "auc": area_under_curve(y, p),
    }


def area_under_curve(y: FloatArray, score: FloatArray) -> float:
    """Chance that a right cell has a higher score than a wrong one (Mann & Whitney, 1947)."""
    right = y == 1
    count = int(right.sum())
    ranks = rankdata(score)[right].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(y) - count)))


def measure(
    data: str, responses: FloatArray, dimensions: int, python: str | None, epochs: int = EPOCHS
) -> list[dict[str, Any]]:
    """The records of one matrix, ours and, where an interpreter has it, py-irt's."""
    seen = masked(responses)
    rows = [row("mergeflow", data, dimensions, responses, seen, ours(seen, dimensions))]
    if python is not None:
        fit = py_irt(seen, dimensions, python, epochs)
        rows.append(row("py-irt", data, dimensions, responses, seen, fit))
        rows[0]["ratio"] = fit and fit.cpu_seconds / rows[0]["cpu_seconds"]
        rows[1]["ratio"] = fit and 1.0
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--responses", type=Path, help="a response matrix, Parquet or CSV")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[1])
    parser.add_argument("--models", type=int, default=400, help="to simulate")
    parser.add_argument("--items", type=int, default=500, help="to simulate")
    parser.add_argument("--py-irt", metavar="PYTHON", help="an interpreter that has py-irt")
    parser.add_argument("--no-py-irt", action="store_true", help="measure only this project")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.responses is None:
        data, responses = "simulated", simulated(given.models, given.items)
    else:
        data, responses = given.responses.stem, read_responses(given.responses).responses
    ours(masked(simulated(20, 20)), 1)  # what is paid once a process is no calibration

    def measure_all(python: str | None) -> list[dict[str, Any]]:
        return [
            record
            for count in given.dimensions
            for record in measure(data, responses, count, python)
        ]

    if given.no_py_irt or given.py_irt:
        rows = measure_all(given.py_irt)
    else:
        print(f"installing {PY_IRT}", file=sys.stderr)
        with installed_py_irt() as python:
            rows = measure_all(python)
    report("calibration", rows, given.json)


if __name__ == "__main__":
    main()
