import pytest

from mergelib.benchmarks.choice_answers import NO_CHOICE, WAYS, named_choice, way_of
from mergelib.errors import InputError

CHOICES = ["red", "blue green", "green", "A house"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (" B", "B"),
        ("B.", "B"),
        ("(C) since it grows", "C"),
        ("C, green", "C"),
        ("D\nQuestion: next", "D"),
        ("red", "A"),
        ("A house", "D"),
        ("A red one", "A"),
        ("not (A) but (C)", "C"),
        ("The answer is blue green.", NO_CHOICE),  # green is in it too
        ("It is red.", "A"),
        ("E.", NO_CHOICE),
        ("", NO_CHOICE),
        ("I think not", NO_CHOICE),
    ],
)
def test_the_choice_that_a_text_names(text: str, letter: str) -> None:
    assert named_choice(text, CHOICES) == letter


@pytest.mark.parametrize(
    ("way", "answer", "place"),
    [
        ("text", "green", 2),
        ("text", "gold", None),
        ("letter", "b", 1),
        ("letter", "E", None),
        ("letter", "ab", None),
        ("index", "0", 0),
        ("index", "4", None),
        ("index", "-1", None),
        ("position", "4", 3),
        ("position", "0", None),
    ],
)
def test_how_an_answer_names_its_choice(way: str, answer: str, place: int | None) -> None:
    assert WAYS[way](answer, CHOICES) == place


def test_the_one_way_that_all_answers_fit() -> None:
    assert way_of([("A", CHOICES), ("D", CHOICES)], "k") == "letter"
    assert way_of([("0", CHOICES), ("3", CHOICES)], "k") == "index"
    assert way_of([("1", CHOICES), ("4", CHOICES)], "k") == "position"
    assert way_of([("red", CHOICES)], "k") == "text"
    # Of two ways that agree everywhere either will do.
    assert way_of([("A", ["A", "B"]), ("B", ["A", "B"])], "k") == "text"
    with pytest.raises(InputError, match="read as index or as position; say which"):
        way_of([("1", CHOICES), ("2", CHOICES)], "k")
    with pytest.raises(InputError, match="most by letter, but 'x' is none of"):
        way_of([("A", CHOICES), ("x", CHOICES)], "k")
