"""Where the shipped models, benchmarks and search files lie."""

from pathlib import Path


def shipped(name: str) -> Path:
    """A folder of `data/`: beside the packages in a checkout, inside them in an installed wheel."""
    package = Path(__file__).resolve().parent
    in_wheel = package / "_data"
    return (in_wheel if in_wheel.is_dir() else package.parent / "data") / name
