from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mergelib.genes import LayerNames
from mergelib.search import parse_search
from mergelib.space import Space
from tests.mergelib.test_space import LLAMA, space_of


def _several(**merge: Any) -> Space:
    parameters = {
        "weight": {"low": 0.0, "high": 1.5},
        "t": {"low": 0.0, "high": 1.0},
        "density": {"low": 0.2, "high": 1.0, "step": 0.2},
    }
    content = {
        "name": "s",
        "base": "base",
        "endpoints": ["endpoint0", "endpoint1"],
        "merge": {"method": ["linear", "slerp", "ties"], "parameters": parameters, **merge},
        "objectives": [{"benchmark": "b"}],
    }
    return Space(parse_search(content, "here"), LayerNames.find(LLAMA))


@given(data=st.data())
def test_a_recipe_of_any_method_comes_back_from_its_genome(data: st.DataObject) -> None:
    space = _several(layer_groups=data.draw(st.integers(1, 3)))
    size = space.dimension
    genome = data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    recipe = space.decode(genome)
    assert space.decode(space.encode(recipe)) == recipe
    names = set(recipe.config.get("parameters", {})) | {
        name for model in recipe.config["models"] for name in model.get("parameters", {})
    }
    assert (
        names
        == {"linear": {"weight"}, "slerp": {"t"}, "ties": {"weight", "density"}}[recipe.method]
    )


def test_genes_of_other_methods_leave_no_trace() -> None:
    space = _several()
    methods = ["linear", "slerp", "ties"]
    assert [space.decode(g).method for g in space.examples()] == methods
    for first in (0.0, 0.5, 1.0):
        active = {g for g in space.genes if g.parameter in ("weight", "density")}
        genome = [first, *([0.3] * (space.dimension - 1))]
        other = [genome[n] if g in active or n == 0 else 0.9 for n, g in enumerate(space.genes)]
        same = space.decode(genome) == space.decode(other)
        assert same == (space.decode(genome).method != "slerp")


def test_layers_share_sets_by_how_many_they_are() -> None:
    space = space_of(layers_per_group=2)
    value = space.decode([0.0, 0.5, 1.0, 0.25] * 2).config["models"][0]["parameters"]["weight"]
    assert value[0]["value"] == [-1.0, -1.0, 0.5, 0.5, 2.0]
    assert space.decode(space.encode(space.decode([0.1, 0.5, 0.9, 0.3] * 2))) == space.decode(
        [0.1, 0.5, 0.9, 0.3] * 2
    )


def test_presets_are_the_spaces_of_other_tools() -> None:
    def preset(**merge: Any) -> Space:
        content = {
            "name": "s",
            "base": "base",
            "endpoints": ["endpoint0", "endpoint1"],
            "merge": merge,
            "objectives": [{"benchmark": "b"}],
        }
        return Space(parse_search(content, "here"), LayerNames.find(LLAMA))

    slerp = preset(preset="mergenetic_slerp")
    assert slerp.dimension == 11
    assert slerp.decode([0.5] * 11).method == "slerp"
    assert preset(preset="mergenetic_slerp", layer_groups=3).dimension == 7
    evolve = preset(preset="mergekit_evolve", method="dare_ties", layers_per_group=2)
    # Two parameters, two models, three groups of layers and the rest.
    assert evolve.dimension == 2 * 2 * 4
    recipe = evolve.decode([0.5] * 16)
    assert recipe.method == "dare_ties"
    assert recipe.config["parameters"] == {"normalize": True}
