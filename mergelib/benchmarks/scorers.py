"""A user's own score of an answer: a function in a Python file beside the search file.

The file is compiled from the very bytes whose digest decides whether an evaluation is reused. It
may import what is installed; a module beside it is not found, since its digest would not count.
"""

import copy
import hashlib
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergelib.errors import InputError, unknown

_NUMBERS = "a number from 0 to 1, or None"


class NotScored(Exception):
    """A scorer gave no score for an item; the message says why."""


@dataclass(frozen=True)
class Scorer:
    """A function (item, answer) -> score.

    Attributes:
        name: the function's.
        digest: SHA-256 of its file and name.
        function: the function.
    """

    name: str
    digest: str
    function: Callable[[dict[str, Any], str], Any]

    def __call__(self, item: Mapping[str, Any], answer: str) -> float | None:
        """Score an answer.

        Args:
            item: what is known of the item; the function gets a copy of its own.
            answer: the model's text, filtered.

        Returns:
            From 0 to 1; None where the function gave None: the item has no score.

        Raises:
            NotScored: the function raised, or returned something else.
        """
        try:
            value = self.function(copy.deepcopy(dict(item)), answer)
        except Exception as error:  # the user's own code may raise anything
            said = " ".join(str(error).split())[:200]
            raise NotScored(f"scorer {self.name}: {type(error).__name__}: {said}") from error
        if value is None:
            return None
        if not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
            raise NotScored(f"scorer {self.name}: returned {value!r:.60}; allowed: {_NUMBERS}")
        return float(value)


def open_scorer(reference: str, key: str) -> Scorer:
    """Import a scorer and check its signature.

    Args:
        reference: "path/module.py:function".
        key: the search file's key, for error messages.

    Raises:
        InputError: no such file or function, the file cannot be imported, or the function does not
            take an item and an answer, or says that it returns something else than a number.
    """
    place, _, name = reference.rpartition(":")
    path = Path(place)
    where = f"{key}: {path.name}"
    if not path.is_file() or path.suffix != ".py":
        raise InputError(
            f"{key}: {reference}: no such Python file; write module:function, for a file beside "
            "the search file"
        )
    source = path.read_bytes()
    digest = hashlib.sha256(source + b"\0" + name.encode()).hexdigest()
    module = types.ModuleType(f"mergeflow_scorer_{digest[:16]}")
    module.__file__ = str(path)
    # Dataclasses and annotations look their module up by its name.
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:  # the user's own code may raise anything
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: cannot be imported: {type(error).__name__}: {said}") from error
    function = getattr(module, name, None)
    if function is None:
        functions = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise InputError(f"{where}: {unknown('a function of it', name, functions)}")
    _check_signature(function, f"{where}: {name}")
    return Scorer(name, digest, function)


def _check_signature(function: Any, where: str) -> None:
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function):
        raise InputError(f"{where}: is no plain function")
    try:
        inspect.signature(function).bind({}, "")
    except TypeError as error:
        raise InputError(f"{where}: must take an item and an answer: {error}") from error
    try:
        said = typing.get_type_hints(function).get("return", Any)
    except (NameError, TypeError) as error:
        raise InputError(f"{where}: its annotations cannot be read: {error}") from error
    for part in typing.get_args(said) or (said,):
        is_number = isinstance(part, type) and issubclass(part, numbers.Real | types.NoneType)
        if part is not Any and not is_number:
            raise InputError(f"{where}: says that it returns {said}; allowed: {_NUMBERS}")
