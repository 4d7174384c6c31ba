"""`prefect.yaml` for any folder: the same deployments, run where the user's models and runs are."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mergelib.files import write_text
from mergelib.shipped import shipped

POOL = "local-process"
"""The work pool of `prefect.yaml`."""


def write_deployments(home: Path, store: Path, place: Path) -> list[str]:
    """Write a prefect.yaml for `prefect deploy`.

    Args:
        home: the folder that flow runs work in, from which relative paths are read.
        store: folder of run folders, the forms' default.
        place: the folder to write it to.

    Returns:
        The deployments' names, each "flow/deployment".
    """
    in_wheel = shipped("prefect.yaml")
    file = in_wheel if in_wheel.is_file() else shipped("").resolve().parent / "prefect.yaml"
    document = _with_shipped_paths(yaml.safe_load(file.read_text(encoding="utf-8")))
    document["pull"] = [
        {"prefect.deployments.steps.set_working_directory": {"directory": str(home)}}
    ]
    for deployment in document["deployments"]:
        deployment["parameters"]["store"] = str(store)
        # By it a deployment of an earlier mergeflow, whose form is another, is told.
        deployment["version"] = version("mergeflow")
    del document["definitions"]
    write_text(place / "prefect.yaml", yaml.safe_dump(document, sort_keys=False))
    return [f"{deployment['name']}/{deployment['name']}" for deployment in document["deployments"]]


def _with_shipped_paths(value: Any) -> Any:
    """The shipped models and benchmarks by their absolute paths, in all of a document."""
    if isinstance(value, dict):
        return {key: _with_shipped_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_shipped_paths(part) for part in value]
    if isinstance(value, str) and value.startswith("data/"):
        return str(shipped(value.removeprefix("data/")).resolve())
    return value
