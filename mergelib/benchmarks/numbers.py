"""The last number of an answer, written in one way: an lm-eval filter named `last_number`.

Any lm-eval task file may use it: `filter: [{function: last_number}, {function: take_first}]`.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Context, Decimal
from typing import Any, Literal

from lm_eval.api.filter import Filter
from lm_eval.api.registry import register_filter

Point = Literal[".", ","]

NO_NUMBER = "[invalid]"
"""What stands for an answer without a number, as in lm-eval's own filters: it is wrong."""

_POWERS = {"千": 3, "万": 4, "萬": 4, "億": 8, "亿": 8, "兆": 12}
"""Powers of ten that may follow a number in Japanese and Chinese: 8万 is 80000."""

_EXACT = Context(prec=400)
"""More digits than a model writes."""

_GROUP_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_AS_ONE = str.maketrans({"\u2212": "-", "\u2011": "-", "\u2019": "'", "\u00b2": " ", "\u00b3": " "})
"""Minus, hyphen and apostrophe as ASCII has them; the exponent of m\u00b2 is no number."""


def _pattern(separators: str, fraction: str) -> re.Pattern[str]:
    """A number, after a sign that may stand before a currency.

    Args:
        separators: of thousands.
        fraction: what decimals look like, with what stands before them.
    """
    grouped = rf"\d{{1,3}}(?:[{separators}]\d{{2,3}})*[{separators}]\d{{3}}(?!\d)"
    return re.compile(
        r"(?P<sign>[-+](?:[$€£¥₩₹]\s?)?)?"
        rf"(?P<whole>{grouped}|\d+|(?<![\w.,])(?={fraction}))(?P<decimals>{fraction})?"
        rf"(?P<power>[eE][-+]?\d{{1,2}}(?!\w))?(?P<units>[{''.join(_POWERS)}]*)"
    )


_PATTERNS: dict[Point, re.Pattern[str]] = {
    ".": _pattern(",'", r"(?:\.\d+)"),
    # A point before one or two digits separates no thousands: it can only be a decimal one.
    ",": _pattern(".'", r"(?:,\d+|\.\d{1,2}(?!\d))"),
}


def last_number(text: str, decimal: Point = ".") -> str | None:
    """Find the last number of a text.

    Read are thousands separators (of India, Switzerland and LaTeX too), decimals, signs, full-width
    digits, and numbers with 千, 万, 億 or 兆. A minus after a number, bracket or Latin letter is
    no sign: the last number of "16-3" is 3. Kanji numerals and fractions are not read.

    Args:
        text: an answer.
        decimal: what stands before decimals; the other of the two separates thousands.

    Returns:
        The number without separators, trailing zeros or a plus, such as "-1234.5"; None for none.
    """
    text = _GROUP_SPACE.sub("", text).replace("{,}", ",").replace("\\,", "").translate(_AS_ONE)
    text = unicodedata.normalize("NFKC", text)
    found, negative, end, last_power = None, False, -1, 0
    for match in _PATTERNS[decimal].finditer(text):
        power = sum(_POWERS[unit] for unit in match["units"])
        value = _EXACT.scaleb(_value(match), power)
        if found is not None and match.start() == end and power < last_power and not match["sign"]:
            found = _EXACT.add(found, value)  # 1億2000万 is one number
        else:
            found, negative = value, _is_negative(text, match)
        end, last_power = match.end(), power
    return None if found is None else _written(-found if negative else found)


def _value(match: re.Match[str]) -> Decimal:
    whole = "".join(c for c in match["whole"] if c.isdecimal()) or "0"
    decimals, power = (match["decimals"] or ".")[1:], match["power"] or ""
    return Decimal(f"{whole}.{decimals}{power}")


def _is_negative(text: str, match: re.Match[str]) -> bool:
    """Whether a minus stands before a number that is neither a subtraction nor a hyphen."""
    if not (match["sign"] or "").startswith("-"):
        return False
    before = text[: match.start()]
    joined = before[-1:] == "-" or (before[-1:].isascii() and before[-1:].isalpha())
    subtracted = before.rstrip()[-1:]
    return not (joined or subtracted.isdecimal() or subtracted in (")", "]", "%"))


def _written(value: Decimal) -> str:
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


@register_filter("last_number")
class LastNumber(Filter):  # type: ignore[misc]
    """Puts `last_number` in the place of each answer, or `NO_NUMBER`."""

    def __init__(self, decimal: Point = ".") -> None:
        """Say what stands before decimals: "." or ","."""
        self._decimal = decimal

    def apply(self, resps: Iterable[Sequence[Any]], docs: Sequence[dict[str, Any]]) -> Any:
        """Read the answers of each request; see lm-eval's `Filter`."""
        return [
            [last_number(str(r), self._decimal) or NO_NUMBER for r in answers] for answers in resps
        ]
