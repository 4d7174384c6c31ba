"""Reading a search file: YAML, overrides from the command line, paths beside the file."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from mergelib.errors import InputError
from mergelib.search import Search, parse_search


def load_search(path: Path, overrides: Iterable[str] = ()) -> Search:
    """Read a search file.

    Args:
        path: the YAML file.
        overrides: "key=value" settings that win over the file; keys are dotted
            ("evolution.generations"), list entries by number ("objectives.0.metric"), values YAML.

    Returns:
        The search, with every local path in it made absolute.

    Raises:
        InputError: the file cannot be read or says something that is not allowed; one line for
            each fault, naming the key, the value and what is allowed.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise InputError(f"{path}: cannot be read: {reason}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: a search file is a mapping of keys, such as name: my-search")
    for override in overrides:
        apply_override(document, override)
    _check_scorers(document)
    _make_paths_absolute(document, path.resolve().parent)
    return parse_search(document, str(path))


def with_absolute_paths(search: Search, folder: Path) -> Search:
    """A search that did not come from a file, with its local paths read from a folder."""
    document = search.model_dump(mode="json")
    _make_paths_absolute(document, folder)
    return Search.model_validate(document)


def apply_override(document: dict[str, Any], override: str) -> None:
    """Set one key of a parsed file; see `load_search`.

    Raises:
        InputError: the override is not key=value, or there is no such place.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override}: write key=value, such as evolution.generations=20")
    *parents, last = key.split(".")
    place: Any = document
    for part in parents:
        place = _step(place, part, override)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: {text!r} is not YAML") from error
    if isinstance(place, list):
        _step(place, last, override)
        place[int(last)] = value
    else:
        place[last] = value


def _step(place: Any, part: str, override: str) -> Any:
    if isinstance(place, list):
        if not part.isdecimal() or int(part) >= len(place):
            raise InputError(
                f"--set {override}: {part!r} is not an entry; allowed: 0 to {len(place) - 1}"
            )
        return place[int(part)]
    below = place.setdefault(part, {}) if isinstance(place, dict) else None
    if not isinstance(below, dict | list):
        raise InputError(f"--set {override}: {part!r} holds a value, not further keys")
    return below


def _make_paths_absolute(document: dict[str, Any], folder: Path) -> None:
    """Turn every model and benchmark that is a path beside the search file into an absolute one."""

    def absolute(value: Any) -> Any:
        if not isinstance(value, str) or not value:
            return value
        path = folder / (Path(value).expanduser() if value.startswith("~/") else value)
        if path.exists():
            return str(path.resolve())
        model, plus, adapter = value.rpartition("+")
        return f"{absolute(model)}+{absolute(adapter)}" if plus else value

    if document.get("base"):
        document["base"] = absolute(document["base"])
    if isinstance(document.get("endpoints"), list):
        document["endpoints"] = [absolute(endpoint) for endpoint in document["endpoints"]]
    for key in ("objectives", "constraints"):
        asked = document.get(key)
        for entry in asked if isinstance(asked, list) else []:
            if isinstance(entry, dict) and "benchmark" in entry:
                _place_benchmark(entry, absolute)
            if isinstance(entry, dict) and _is_beside(entry.get("scorer")):
                module, _, function = entry["scorer"].partition(":")
                entry["scorer"] = f"{folder / module}.py:{function}"
    fitness = document.get("fitness")
    calibration = fitness.get("calibration") if isinstance(fitness, dict) else None
    if isinstance(calibration, dict) and calibration.get("source", "self") != "self":
        calibration["source"] = absolute(calibration["source"])


def _place_benchmark(entry: dict[str, Any], absolute: Callable[[Any], Any]) -> None:
    """Make the paths of a benchmark's files absolute, in place."""
    benchmark = entry["benchmark"]
    if isinstance(benchmark, dict):
        for key in ("file", "fresh", "examples"):
            if key in benchmark:
                benchmark[key] = absolute(benchmark[key])
    else:
        entry["benchmark"] = absolute(benchmark)


def _is_beside(scorer: Any) -> bool:
    """Whether a scorer is module:function, and so a file beside the search file."""
    parts = scorer.split(":") if isinstance(scorer, str) else []
    return len(parts) == 2 and all(part.isidentifier() for part in parts)


def _check_scorers(document: dict[str, Any]) -> None:
    """Refuse code from elsewhere, which a search file must not bring about."""
    for key in ("objectives", "constraints"):
        asked = document.get(key)
        for number, entry in enumerate(asked if isinstance(asked, list) else []):
            scorer = entry.get("scorer") if isinstance(entry, dict) else None
            if scorer is not None and not _is_beside(scorer):
                raise InputError(
                    f"{key}.{number}.scorer: {scorer!r}: write module:function, for a Python file "
                    "beside the search file"
                )
