from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergelib.errors import InputError
from mergelib.genes import LayerNames
from mergelib.path_space import PathSpace
from mergelib.search import parse_search
from tests.mergelib.test_space import LLAMA

DOWN = tuple(f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(5))


def path_space(endpoints: int = 2, names: tuple[str, ...] = LLAMA + DOWN, **path: Any) -> PathSpace:
    search = parse_search(
        {
            "name": "s",
            "endpoints": [f"endpoint{n}" for n in range(endpoints)],
            "merge": {"method": "passthrough", "path": path},
            "objectives": [{"benchmark": "b"}],
        },
        "here",
    )
    assert search.merge.path is not None
    return PathSpace(search, search.merge.path, LayerNames.find(names))


@given(data=st.data())
def test_a_recipe_comes_back_from_its_genome(data):
    space = path_space(
        endpoints=data.draw(st.integers(2, 4)),
        length=data.draw(st.integers(1, 12)),
        reach=data.draw(st.integers(0, 3)),
        scale=data.draw(st.sampled_from([1.0, 0.7, {"low": 0.5, "high": 1.5}])),
    )
    size = space.dimension
    genome = data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    recipe = space.decode(genome)
    assert space.decode(space.encode(recipe)) == recipe
    layers = [s["sources"][0]["layer_range"] for s in recipe.config["slices"]]
    assert all(0 <= start < stop == start + 1 <= 5 for start, stop in layers)


def test_a_corner_is_an_endpoint_as_it_is():
    space = path_space(endpoints=3, scale={"low": 0.5, "high": 1.5})
    for number, corner in enumerate(space.corners()):
        slices = space.decode(corner).config["slices"]
        assert slices == [
            {"sources": [{"model": f"endpoint{number}", "layer_range": [n, n + 1]}]}
            for n in range(5)
        ]


def test_a_longer_path_repeats_layers_in_order():
    space = path_space(length=8)
    slices = space.decode(space.corners()[0]).config["slices"]
    layers = [s["sources"][0]["layer_range"][0] for s in slices]
    assert layers == sorted(layers)
    assert set(layers) == set(range(5))
    assert space.layers == 8


def test_what_one_would_try_by_hand_is_different_paths_of_two_models():
    space = path_space(endpoints=2)
    sweep = space.uniform_sweep()
    recipes = [space.decode(genome).to_yaml() for genome in sweep]
    assert len(set(recipes)) == len(recipes) == 8
    assert all("endpoint0" in text and "endpoint1" in text for text in recipes)


def test_what_cannot_be_scaled_is_named():
    with pytest.raises(InputError, match=r"merge\.path\.scale: .*'down_proj'"):
        path_space(names=LLAMA, scale=0.5)
    assert path_space(names=LLAMA).dimension == 10


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_paths_by_hand_are_no_endpoints_unless_nothing_else_is_there(length):
    space = path_space(length=length)
    sweep = space.uniform_sweep()
    assert sweep
    assert (space.corners()[0] in sweep) == (length == 1)
