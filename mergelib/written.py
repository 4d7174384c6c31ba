"""What a run's search.yaml says: the search, and what was found when it was begun."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mergelib.errors import InputError
from mergelib.search import Search, parse_search


class Written(NamedTuple):
    """What a run's search.yaml says: the search, and what was found when it was begun."""

    search: Search
    resolved: Mapping[str, Any]


@lru_cache(maxsize=4)
def read_search(path: Path, _state: tuple[int, ...]) -> Written:
    """Read a run's search.yaml, once for each state of the file.

    Raises:
        InputError: it is damaged, or no run has written it.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: is damaged, and the run with it; give the search another name, or delete "
            f"{path.parent}"
        ) from error
    if not isinstance(document, dict) or "resolved" not in document:
        raise InputError(
            f"{path}: was not written by a run; put search files elsewhere, or give another --store"
        )
    resolved = document.pop("resolved")
    return Written(parse_search(document, str(path)), resolved)
