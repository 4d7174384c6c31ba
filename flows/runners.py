"""Which runners are installed; see `flows.workers`, which imports Prefect, for what they do."""

from importlib.util import find_spec

from mergelib.errors import InputError
from mergelib.sections.compute import Compute


def check_runner(compute: Compute) -> None:
    """Check that a search file's runner is installed.

    Raises:
        InputError: it is not.
    """
    if compute.runner != "local" and find_spec(f"prefect_{compute.runner}") is None:
        raise InputError(
            f"compute.runner: {compute.runner} is not installed; pip install "
            f"'mergeflow[{compute.runner}]', or give runner: local"
        )
