"""Whether an answer is in the language that was asked for, by an offline detector (py3langid)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from mergelib.errors import InputError, unknown

_NO_LANGUAGE = "zxx"
_ALSO = {
    "ar": ("arz", "ary"),
    "no": ("nn",),
    "uz": ("uzs",),
    "zh": ("wuu", "yue"),
}
"""What the detector tells apart and a reader would call the same language."""

_ENOUGH = 10
"""Letters that an answer must have to be called one in another language."""

_OF_A_SIGN = 4
"""A kana or Chinese character counts as so many of them."""

TOO_SHORT = "too short to tell its language"


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        outcome: "same"; "other"; or "too_short", where it is not the same, and there are too few
            letters or it may be the same.
        found: the likeliest language; None without a letter.
    """

    outcome: Literal["same", "other", "too_short"]
    found: str | None


@dataclass(frozen=True)
class LanguageCheck:
    """A language that answers must be in.

    Attributes:
        language: its ISO 639 code.
        threshold: the chance at which an answer counts as one in any other, from 0.5 to 1.
    """

    language: str
    threshold: float

    def __call__(self, text: str) -> Verdict:
        """Look at a text. Digits, signs and punctuation are passed over: they are of no language.

        Args:
            text: a whole answer, unfiltered.
        """
        words = " ".join("".join(c if c.isalpha() else " " for c in text).split())
        if not words:
            return Verdict("too_short", None)
        ranked = _detector().rank(words)
        found = str(max(ranked, key=lambda entry: entry[1])[0])
        wanted = (self.language, *_ALSO.get(self.language, ()))
        if found in wanted:
            return Verdict("same", found)
        chance = 1 - sum(share for name, share in ranked if name in wanted)
        letters = sum(_OF_A_SIGN if ord(c) >= 0x2E80 else 1 for c in words if c != " ")
        sure = letters >= _ENOUGH and chance >= self.threshold and found != _NO_LANGUAGE
        return Verdict("other" if sure else "too_short", found)

    @property
    def decided_by(self) -> list[Any]:
        """What decides the verdicts, as plain values."""
        return [self.language, self.threshold, _ENOUGH, f"py3langid {version('py3langid')}"]


def language_check(language: str, threshold: float, key: str) -> LanguageCheck:
    """Make a check.

    Args:
        language: an ISO 639 code.
        threshold: see `LanguageCheck`.
        key: the search file's key, for error messages.

    Raises:
        InputError: the detector is not installed or does not know the language.
    """
    try:
        known = languages()
    except (ImportError, PackageNotFoundError) as error:
        raise InputError(
            f"{key}: needs py3langid, which is not installed: pip install py3langid"
        ) from error
    if language not in known:
        raise InputError(f"{key}: {unknown('a language of the detector', language, known)}")
    return LanguageCheck(language, threshold)


def languages() -> Sequence[str]:
    """The codes of all languages that the detector knows."""
    return sorted({str(name) for name in _detector().nb_classes} - {_NO_LANGUAGE})


@cache
def _detector() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def counted(reasons: Sequence[str | None]) -> tuple[int, int]:
    """How many responses are in another language, and how many too short to tell.

    Args:
        reasons: of responses that were checked; see `reason`.
    """
    other = sum(r is not None and r.startswith(_OTHER) for r in reasons)
    return other, sum(r == TOO_SHORT for r in reasons)


_OTHER = "answered in "


def reason(verdict: Verdict, language: str) -> str | None:
    """What a response says of a verdict; None for an answer in the right language."""
    if verdict.outcome == "other":
        return f"{_OTHER}{verdict.found}, not {language}"
    return TOO_SHORT if verdict.outcome == "too_short" else None
