"""Multiple choice in plain files: how an answer, given or written, names its choice."""

import re
from collections.abc import Callable, Iterable, Sequence
from string import ascii_uppercase
from typing import Any

from lm_eval.api.filter import Filter
from lm_eval.api.registry import register_filter

from mergelib.errors import InputError

NO_CHOICE = "[invalid]"
"""What stands for a text that names no choice, as in lm-eval's own filters: it is wrong."""


def _number(answer: str, choices: Sequence[str], first: int) -> int | None:
    place = int(answer) - first if answer.isascii() and answer.isdecimal() else -1
    return place if 0 <= place < len(choices) else None


def _letter(answer: str, choices: Sequence[str]) -> int | None:
    place = ascii_uppercase.find(answer.upper()) if len(answer) == 1 else -1
    return place if 0 <= place < len(choices) else None


WAYS: dict[str, Callable[[str, Sequence[str]], int | None]] = {
    "text": lambda answer, choices: choices.index(answer) if choices.count(answer) == 1 else None,
    "letter": _letter,
    "index": lambda answer, choices: _number(answer, choices, 0),
    "position": lambda answer, choices: _number(answer, choices, 1),
}
"""How an answer may name its choice; each gives the choice's place from 0 on, None for none."""


def way_of(answers: Iterable[tuple[str, Sequence[str]]], key: str) -> str:
    """The one way in which all answers of a file can be read.

    Args:
        answers: each with its choices.
        key: the search file's key, for error messages.

    Raises:
        InputError: there is none, or several that disagree.
    """
    answers = list(answers)
    read = {name: [way(a, choices) for a, choices in answers] for name, way in WAYS.items()}
    fitting = {name: places for name, places in read.items() if None not in places}
    if not fitting:
        best = max(read, key=lambda name: sum(place is not None for place in read[name]))
        odd = answers[read[best].index(None)]
        raise InputError(
            f"{key}: answers name their choices in no one way: most by {best}, but {odd[0]!r} is "
            f"none of {list(odd[1])}; allowed: {', '.join(WAYS)}"
        )
    first, *others = fitting
    if any(fitting[other] != fitting[first] for other in others):
        raise InputError(
            f"{key}: answers can be read as {' or as '.join(fitting)}; say which of them"
        )
    return first


def named_choice(text: str, choices: Sequence[str]) -> str:
    """The letter of the choice that a text names.

    A text that is a choice names it; else one that begins with its letter, as "B.", "(B)" or
    alone; else the last letter in brackets; else the one choice that occurs in it.

    Args:
        text: what a model wrote.
        choices: at most 26.

    Returns:
        A capital letter, or `NO_CHOICE`.
    """
    letters = ascii_uppercase[: len(choices)]
    plain = text.strip()
    equal = [letter for letter, c in zip(letters, choices, strict=True) if plain == c.strip()]
    if len(equal) == 1:
        return equal[0]
    if opening := re.match(rf"\(?([{letters}])(?:[.,:)]|\s*$|\s*\n)", plain):
        return opening[1]
    if bracketed := re.findall(rf"\(([{letters}])\)", plain):
        return str(bracketed[-1])
    inside = [letter for letter, c in zip(letters, choices, strict=True) if c.strip() in plain]
    return inside[0] if len(inside) == 1 else NO_CHOICE


@register_filter("named_choice")
class NamedChoice(Filter):  # type: ignore[misc]
    """Puts the letter of the choice in the place of each answer; the document has `choices`."""

    def apply(self, resps: Iterable[Sequence[Any]], docs: Sequence[dict[str, Any]]) -> Any:
        """Read the answers of each request; see lm-eval's `Filter`."""
        return [
            [named_choice(str(answer), doc["choices"]) for answer in answers]
            for answers, doc in zip(resps, docs, strict=True)
        ]
