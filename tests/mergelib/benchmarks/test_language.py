"""The language of answers: short ones, ones made of digits, and ones in another language."""

import pytest

from mergelib.benchmarks.language import counted, language_check, languages, reason
from mergelib.errors import InputError

ANSWERS = {
    "ja": [
        "答えは18です。",
        "16 - 3 - 4 = 9、9 * 2 = 18ドル",
        "ジャネットは1日に9個の卵を売ります。",
    ],
    "de": ["Die Antwort ist 18.", "Sie verkauft jeden Tag 9 Eier für 2 Dollar, also 18 Dollar."],
    "en": ["The answer is 18.", "She sells 9 eggs a day for 2 dollars each, which makes 18."],
    "zh": ["答案是十八元，因为她每天卖九个鸡蛋。"],
}
OPEN = ["", "18", " 71-4=67\n#### 67", "$18.00", "x = 9 * 2", "9 * 2 = 18 dollars", "OK", "18個"]


@pytest.mark.parametrize("wanted", ANSWERS)
def test_answers_in_the_language_stay_and_those_in_another_do_not(wanted: str) -> None:
    check = language_check(wanted, 0.99, "k")
    for language, answers in ANSWERS.items():
        for answer in answers:
            outcome = check(answer).outcome
            if language == wanted:
                assert outcome == "same", answer
            elif sum(map(str.isalpha, answer)) > 15:
                assert outcome == "other", answer


@pytest.mark.parametrize("wanted", ANSWERS)
@pytest.mark.parametrize("answer", OPEN)
def test_what_is_too_short_to_tell_is_never_called_another_language(
    wanted: str, answer: str
) -> None:
    check = language_check(wanted, 0.99, "k")
    assert check(answer).outcome != "other"


def test_a_lower_threshold_is_stricter() -> None:
    texts = ["Hij heeft negen", "Er kauft neun", "una mela e pere"]
    loose, strict = (language_check("en", t, "k") for t in (0.9999, 0.51))
    others = [sum(check(text).outcome == "other" for text in texts) for check in (loose, strict)]
    assert others[0] < others[1] == 3


def test_reasons_are_counted() -> None:
    check = language_check("ja", 0.99, "k")
    said = [reason(check(answer), "ja") for answer in ("The answer is 18.", "18", "18個です")]
    assert said == ["answered in en, not ja", "too short to tell its language", None]
    assert counted(said) == (1, 1)


def test_an_unknown_language_is_named() -> None:
    assert {"ja", "de", "en"} <= set(languages())
    with pytest.raises(InputError, match="k: 'jp' is not a language of the detector; Allowed: ace"):
        language_check("jp", 0.9, "k")


def test_a_missing_detector_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from mergelib.benchmarks import language

    language._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(InputError, match="k: needs py3langid, which is not installed: pip install"):
        language_check("ja", 0.9, "k")
    language._detector.cache_clear()
