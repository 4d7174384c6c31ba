import hashlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mergelib.merging.methods import RANDOM_METHODS, merge_methods
from mergelib.recipes import Recipe, canonical_digest

FINGERPRINTS = {"base": "b" * 64, "one": "1" * 64, "two": "2" * 64}
CONFIG = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [
        {"model": "one", "parameters": {"weight": [0.1, 0.2], "density": 0.5}},
        {"model": "two", "parameters": {"weight": [{"filter": "mlp", "value": 1e-6}]}},
    ],
    "parameters": {"normalize": True, "lambda": 1.0},
    "dtype": "float32",
    "out_dtype": "bfloat16",
}


def changed(**changes) -> Recipe:
    return Recipe({**CONFIG, **changes})


def digest(recipe: Recipe, fingerprints=FINGERPRINTS, seed: int = 0) -> str:
    return recipe.digest(fingerprints, seed)


def backwards(value):
    """The same mappings with their keys in another order."""
    if isinstance(value, dict):
        return {key: backwards(part) for key, part in reversed(value.items())}
    return [backwards(part) for part in value] if isinstance(value, list) else value


def test_names_its_method_and_models():
    assert Recipe(CONFIG).method == "ties"
    assert Recipe(CONFIG).models == ("base", "one", "two")


def test_the_digest_is_a_sha256_that_stays():
    """A cached result is found again by it: a change throws away what users have computed."""
    expected = {
        **CONFIG,
        "base_model": "b" * 64,
        "models": [
            {**CONFIG["models"][0], "model": "1" * 64},
            {**CONFIG["models"][1], "model": "2" * 64},
        ],
    }
    assert digest(Recipe(CONFIG)) == canonical_digest(expected)
    text = '{"a":[1,2.5,null],"b":"\\u65e5"}'
    value = {"b": "日", "a": [1, 2.5, None]}
    assert canonical_digest(value) == hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_does_not_depend_on_key_order():
    assert digest(Recipe(backwards(CONFIG))) == digest(Recipe(CONFIG))


def test_the_digest_does_not_depend_on_where_models_lie():
    text = Recipe(CONFIG).to_yaml()
    for name in ("base", "one", "two"):
        text = text.replace(f"model: {name}", f"model: /elsewhere/{name}")
    moved = {f"/elsewhere/{name}": value for name, value in FINGERPRINTS.items()}
    assert Recipe.from_yaml(text).models == ("/elsewhere/base", "/elsewhere/one", "/elsewhere/two")
    assert digest(Recipe.from_yaml(text), moved) == digest(Recipe(CONFIG))


@pytest.mark.parametrize(
    "other",
    [
        changed(out_dtype="float32"),
        changed(merge_method="task_arithmetic"),
        changed(models=CONFIG["models"][::-1]),
        changed(models=CONFIG["models"][:1]),
        changed(base_model="one"),
        changed(parameters={"normalize": True, "lambda": 1.000001}),
        changed(parameters={"normalize": False, "lambda": 1.0}),
    ],
)
def test_the_digest_depends_on_the_content(other):
    assert digest(other) != digest(Recipe(CONFIG))


@pytest.mark.parametrize("model", sorted(FINGERPRINTS))
def test_the_digest_depends_on_the_weights(model):
    assert digest(Recipe(CONFIG), {**FINGERPRINTS, model: "f" * 64}) != digest(Recipe(CONFIG))


@pytest.mark.parametrize("method", sorted(merge_methods()))
def test_the_seed_counts_only_where_numbers_are_drawn(method):
    recipe = changed(merge_method=method)
    same = digest(recipe, seed=0) == digest(recipe, seed=1)
    assert same == (method not in RANDOM_METHODS)


def test_the_recipe_is_left_as_it_was():
    before = yaml.safe_dump(CONFIG)
    digest(Recipe(CONFIG))
    assert yaml.safe_dump(CONFIG) == before


weights = st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.integers()


@given(weights=st.lists(weights, min_size=1), name=st.text(min_size=1), seed=st.integers(0, 9))
def test_yaml_gives_the_same_recipe_back(weights, name, seed):
    models = [{"model": name, "parameters": {"weight": [{"value": weights}], "density": weights}}]
    recipe = changed(models=models)
    back = Recipe.from_yaml(recipe.to_yaml())
    assert back.config == recipe.config
    assert back.to_yaml() == recipe.to_yaml()
    fingerprints = {**FINGERPRINTS, name: "n"}
    assert digest(back, fingerprints, seed) == digest(recipe, fingerprints, seed)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_is_not_json_has_no_digest(value):
    with pytest.raises((ValueError, TypeError)):
        canonical_digest({"value": value})
