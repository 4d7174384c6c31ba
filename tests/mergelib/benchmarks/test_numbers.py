"""Hand-written answers and the numbers that a reader takes from them."""

import random

import pytest
from lm_eval.filters import build_filter_ensemble

from mergelib.benchmarks.numbers import NO_NUMBER, last_number

ANSWERS = [
    ("18", "18"),
    ("The answer is 18.", "18"),
    ("71-4=67\n#### 67", "67"),
    ("16 - 3 - 4 = 9, and 9 * 2 = 18 dollars", "18"),
    # Thousands separators.
    ("= 1,234.", "1234"),
    ("2,125", "2125"),
    ("$1,234,567.50", "1234567.5"),
    ("12,34,567 rupees", "1234567"),
    ("1'234'567 Franken", "1234567"),
    ("1\u2019234 Franken", "1234"),
    ("276\u202f000 euros", "276000"),
    ("1\u00a0234", "1234"),
    (r"\boxed{1{,}234}", "1234"),
    (r"$12\,500$", "12500"),
    ("1, 2 and 3", "3"),
    ("10, 200, 3000", "3000"),
    ("12,5", "5"),
    # Decimals.
    ("0.50", "0.5"),
    ("It costs .75", "0.75"),
    ("No.5", "5"),
    ("18.0", "18"),
    ("18.", "18"),
    ("7...", "7"),
    ("1.5e3", "1500"),
    ("0.0", "0"),
    ("007", "7"),
    # Signs: of a number, of a currency, and those that are none.
    ("-5", "-5"),
    ("The change is -5.5 degrees", "-5.5"),
    ("\u22125", "-5"),
    ("\uff0d\uff15", "-5"),
    ("-$1,234.00", "-1234"),
    ("$-20", "-20"),
    ("+7", "7"),
    ("x = -3", "-3"),
    ("(-3)", "-3"),
    ("\u7b54\u3048\u306f-12\u3067\u3059", "-12"),
    ("16-3", "3"),
    ("16 -3", "3"),
    ("(4+5)-3", "3"),
    ("Covid-19", "19"),
    ("10\u201320", "20"),
    ("-0", "0"),
    # Full-width digits and signs.
    ("\uff11\uff18", "18"),
    ("\u7b54\u3048\uff1a\uff11\uff0c\uff12\uff13\uff14\uff0e\uff15\u5186", "1234.5"),
    ("\uffe51,000", "1000"),
    # Units of Japanese and Chinese.
    ("7\u4e07\u30c9\u30eb", "70000"),
    ("1\u51042000\u4e07\u5186", "120000000"),
    ("\uff13\u4e07\uff15\u5343\u5186", "35000"),
    ("5\u5343\u4e07", "50000000"),
    ("1.5\u4e07", "15000"),
    ("3\u4e07\u30685\u5186", "5"),
    # What is not a number's own.
    ("50%", "50"),
    ("18 m\u00b2", "18"),
    ("30 \u20ac", "30"),
    ("at 3:30", "30"),
]

GERMAN = [
    ("1.234", "1234"),
    ("1.234.567,5 Euro", "1234567.5"),
    ("12,5", "12.5"),
    ("12.5", "12.5"),
    ("-3,0", "-3"),
    ("Die Antwort ist 18.", "18"),
    ("276\u202f000,00 \u20ac", "276000"),
]


@pytest.mark.parametrize(("answer", "number"), ANSWERS)
def test_the_last_number_of_an_answer(answer: str, number: str) -> None:
    assert last_number(answer) == number


@pytest.mark.parametrize(("answer", "number"), GERMAN)
def test_with_a_decimal_comma(answer: str, number: str) -> None:
    assert last_number(answer, ",") == number


@pytest.mark.parametrize("answer", ["", "no idea", "\u5341\u516b", "-", ",.", "...", "e"])
def test_no_number(answer: str) -> None:
    assert last_number(answer) is None


def test_any_number_is_read_back_however_it_is_written() -> None:
    draw = random.Random(0)
    for _ in range(300):
        cents = draw.randrange(10 ** draw.randint(1, 12)) * draw.choice((1, 100))
        negative = draw.random() < 0.3 and cents > 0
        plain = f"{'-' if negative else ''}{cents // 100}.{cents % 100:02d}"
        plain = plain.rstrip("0").rstrip(".")
        written = f"{'-' if negative else ''}{cents // 100:,}.{cents % 100:02d}"
        assert last_number(f"so it is {written}.") == plain
        wide = written.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789,.-"})
        assert last_number(wide) == plain
        german = written.translate({ord(","): ".", ord("."): ","})
        assert last_number(f"also {german} Euro", ",") == plain


def test_a_number_of_any_length_is_read_quickly() -> None:
    assert last_number("9" * 3000) is not None
    assert last_number("1e99" * 500) is not None
    assert last_number("-" * 20000 + "5") == "5"


def test_lm_eval_finds_the_filter_by_its_name() -> None:
    ensemble = build_filter_ensemble("n", [["last_number", {"decimal": ","}], ["take_first", None]])

    class Asked:
        def __init__(self, answer: object) -> None:
            self.resps, self.doc, self.filtered_resps = [answer], {}, {}

    asked = [Asked("3,50 Euro"), Asked("nichts")]
    ensemble.apply(asked)
    assert [a.filtered_resps["n"] for a in asked] == ["3.5", NO_NUMBER]
