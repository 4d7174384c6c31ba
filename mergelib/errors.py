"""The errors that mergeflow raises on purpose, under one base class.

An `InputError` is something the user can mend: the message names the place, the value and what is
allowed, in one line. Everything else that goes wrong in a search is a `SearchError`.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MergeflowError(Exception):
    """Base of every error that mergeflow raises on purpose."""


class InputError(MergeflowError):
    """What the user gave is at fault; the command ends with exit code 2."""


class SearchError(MergeflowError):
    """A search cannot go on; the command ends with exit code 1 and can be run again."""


class MergeError(MergeflowError):
    """One recipe could not be merged: its candidate has failed, and the search goes on."""


class TooSlow(MergeflowError):
    """A candidate's time is up: it has failed, and the search goes on."""


def unknown(kind: str, value: str, allowed: Iterable[str]) -> str:
    """Say that `value` is not one of `allowed`, with the nearest match first.

    Args:
        kind: what the value should have been, with its article ("a merge method").
        value: what the user wrote.
        allowed: what may be written.

    Returns:
        One line, such as "'tise' is not a merge method; did you mean 'ties'? Allowed: ...".
    """
    choices = sorted(allowed)
    near = get_close_matches(value, choices, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{value!r} is not {kind}; {hint}Allowed: {', '.join(choices)}"
