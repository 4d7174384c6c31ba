import pytest

from mergelib.places import changed, is_place, models_of, moves, same_models, with_models_at
from mergelib.recipes import Recipe
from mergelib.search import parse_search


@pytest.fixture
def search(search_content):
    """A search with other places for its base and endpoints."""

    def at(base, *endpoints):
        content = search_content | {"base": base, "endpoints": list(endpoints)}
        return parse_search(content, "here")

    return at


BEFORE = {"a/base": "B", "a/one": "1", "a/two": "2", "zoo_ja": "items", "/a/bank": "f"}


def test_what_is_a_place():
    for key in (
        *("base", "endpoints", "objectives.0.benchmark", "constraints.12.benchmark"),
        *("objectives.0.benchmark.file", "constraints.1.benchmark.fresh"),
        *("objectives.1.benchmark.examples", "objectives.0.scorer", "fitness.calibration.source"),
    ):
        assert is_place(key)
    for key in (
        "seed",
        "objectives.0.metric",
        "objectives.benchmark",
        "objectives.0.benchmark.prompt",
        "basement",
        "evolution",
    ):
        assert not is_place(key)


def test_moved_models_are_the_same_ones(search):
    old, new = search("a/base", "a/one", "a/two"), search("b/base", "b/one", "a/two")
    now = {"b/base": "B", "b/one": "1", "a/two": "2"}
    assert models_of(new) == ["b/base", "b/one", "a/two"]
    assert same_models(old, new, BEFORE, now, {})
    assert not same_models(old, new, BEFORE, now | {"b/one": "other"}, {})
    assert not same_models(old, new, BEFORE, {"b/base": "B"}, {})
    assert moves(old, new) == {"a/base": "b/base", "a/one": "b/one"}


def test_models_in_another_order_or_in_each_others_places_are_not(search):
    old = search("a/base", "a/one", "a/two")
    turned = search("a/base", "a/two", "a/one")
    assert not same_models(old, turned, BEFORE, BEFORE, {})
    swapped = BEFORE | {"a/one": "2", "a/two": "1"}
    assert not same_models(old, turned, BEFORE, swapped, {})


def test_a_place_that_another_model_had_before_is_taken_for_good(search):
    """Of a recipe from the very beginning nobody could say which model it means."""
    second, third = search("a/base", "b/one", "a/two"), search("a/base", "b/one", "a/one")
    earlier = moves(search("a/base", "a/one", "a/two"), second)
    before, now = BEFORE | {"b/one": "1"}, {"a/base": "B", "b/one": "1", "a/one": "2"}
    assert same_models(second, third, before, now, {})
    assert not same_models(second, third, before, now, earlier)
    back = search("a/base", "a/one", "a/two")
    assert same_models(second, back, before, BEFORE, earlier)


def test_moves_follow_each_other_and_back(search):
    first, second = search("a/base", "a/one", "a/two"), search("a/base", "b/one", "a/two")
    third = search("a/base", "c/one", "a/two")
    once = moves(first, second)
    assert moves(second, third, once) == {"a/one": "c/one", "b/one": "c/one"}
    assert moves(second, first, once) == {"b/one": "a/one"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"a/two": "other"}, "a/two"),
        ({"zoo_ja": "other"}, "zoo_ja"),
        ({"/a/bank": "other"}, "/a/bank"),
        ({"compute": "cuda"}, "compute"),
    ],
)
def test_the_first_change_is_told(change, said, search):
    own = search("a/base", "a/one", "a/two")
    assert changed(own, own, BEFORE, BEFORE | change) == said


def test_files_may_lie_elsewhere_and_benchmarks_keep_their_names(search):
    own = search("a/base", "a/one", "a/two")
    rest = {name: digest for name, digest in BEFORE.items() if name != "/a/bank"}
    assert changed(own, own, BEFORE, {**rest, "/b/bank": "f"}) is None
    assert changed(own, own, BEFORE, rest) == "/a/bank"
    renamed = {"zoo_de" if name == "zoo_ja" else name: d for name, d in BEFORE.items()}
    assert changed(own, own, BEFORE, renamed) == "zoo_ja"


def test_a_recipe_is_read_with_the_new_names():
    recipe = Recipe(
        {
            "merge_method": "task_arithmetic",
            "base_model": "a/base",
            "models": [{"model": "a/one", "parameters": {"weight": 0.5}}, {"model": "a/one-b"}],
        }
    )
    text = recipe.to_yaml()
    assert with_models_at(text, {}) is text
    there = Recipe.from_yaml(with_models_at(text, {"a/one": "b/one"}))
    assert there.models == ("a/base", "b/one", "a/one-b")
    contents = {"a/base": "B", "a/one": "1", "b/one": "1", "a/one-b": "3"}
    assert there.digest(contents, 0) == recipe.digest(contents, 0)
