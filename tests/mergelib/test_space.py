from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergelib.errors import InputError
from mergelib.genes import Gene, LayerNames
from mergelib.search import parse_search
from mergelib.sections.merge import Range
from mergelib.space import Space

LAYERS = 5
LLAMA = (
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{part}.weight"
        for layer in range(LAYERS)
        for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "input_layernorm")
    ),
    "model.norm.weight",
    "lm_head.weight",
)
METHODS: dict[str, dict[str, Range | float]] = {
    "task_arithmetic": {"weight": Range(low=-1.0, high=2.0)},
    "ties": {"weight": Range(low=0.0, high=1.5), "density": Range(low=0.1, high=0.9)},
    "linear": {"weight": Range(low=0.0, high=1.0)},
    "slerp": {"t": Range(low=0.0, high=1.0)},
    "dare_ties": {
        "weight": 0.7,
        "density": Range(low=0.1, high=1.0),
        "lambda": Range(low=0, high=2),
    },
    "nuslerp": {"weight": Range(low=0.1, high=1.0)},
    "nearswap": {"t": Range(low=0.0, high=0.01)},
    "sce": {"select_topk": Range(low=0.05, high=1.0)},
}


def space_of(
    method: str = "task_arithmetic",
    parameters: dict[str, Any] | None = None,
    endpoints: int = 2,
    names: tuple[str, ...] = LLAMA,
    **merge: Any,
) -> Space:
    parameters = METHODS[method] if parameters is None else parameters
    content = {
        "name": "s",
        "base": "base",
        "endpoints": [f"endpoint{n}" for n in range(endpoints)],
        "merge": {"method": method, "parameters": parameters, **merge},
        "objectives": [{"benchmark": "b"}],
    }
    return Space(parse_search(content, "here"), LayerNames.find(names))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    method = draw(st.sampled_from(sorted(METHODS)))
    components = draw(st.lists(st.sampled_from(["self_attn", "mlp", "embed"]), unique=True))
    return space_of(
        method,
        endpoints=2 if method in ("slerp", "nearswap", "nuslerp") else draw(st.integers(2, 4)),
        layer_groups=draw(st.integers(1, LAYERS)),
        components=components,
        smooth=draw(st.booleans()),
    )


@given(space=spaces(), data=st.data())
def test_a_genome_comes_back_from_its_recipe(space, data):
    positions = st.floats(0, 1)
    genome = data.draw(st.lists(positions, min_size=space.dimension, max_size=space.dimension))
    recipe = space.decode(genome)
    back = space.encode(recipe)
    for gene, before, after in zip(space.genes, genome, back, strict=True):
        assert after == pytest.approx(before, abs=1e-6 / (gene.high - gene.low))
    again = space.decode(back)
    assert again.config == recipe.config
    assert again.to_yaml() == recipe.to_yaml()


@given(space=spaces(), data=st.data())
def test_every_gene_changes_the_recipe(space, data):
    middle = [0.5] * space.dimension
    changed = data.draw(st.integers(0, space.dimension - 1))
    other = [0.75 if n == changed else 0.5 for n in range(space.dimension)]
    assert space.decode(other).config != space.decode(middle).config


@pytest.mark.parametrize(
    ("method", "endpoints", "merge", "dimension"),
    [
        ("task_arithmetic", 2, {}, 2),
        ("task_arithmetic", 3, {}, 3),
        # The layers' groups and all the rest.
        ("task_arithmetic", 2, {"layer_groups": 4}, 2 * (4 + 1)),
        ("task_arithmetic", 2, {"components": ["self_attn", "mlp"]}, 2 * 3),
        ("ties", 3, {"layer_groups": 2, "components": ["mlp"]}, 2 * 3 * (2 + 1)),
        ("slerp", 2, {"layer_groups": 3}, 3 + 1),
        # Density belongs to each model, lambda to all.
        ("dare_ties", 3, {}, 3 + 1),
        # No layer has embeddings: groups of layers would be genes without effect.
        ("linear", 2, {"layer_groups": 4, "components": ["embed", "mlp"]}, 2 * (1 + 4 + 1)),
    ],
)
def test_the_dimension_counts_models_sets_and_groups(method, endpoints, merge, dimension):
    space = space_of(method, endpoints=endpoints, **merge)
    assert space.dimension == len(space.genes) == dimension


def test_a_recipe_as_mergekit_reads_it():
    space = space_of(
        "ties",
        {"weight": {"low": 0.0, "high": 1.0}, "density": 0.5, "normalize": False},
        layer_groups=2,
        components=["self_attn"],
        export_dtype="float16",
    )
    assert space.decode([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).config == {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {
                "model": "endpoint0",
                "parameters": {
                    "weight": [
                        {"filter": "self_attn", "value": [0.1, 0.1, 0.1, 0.2, 0.2]},
                        {"value": 0.3},
                    ]
                },
            },
            {
                "model": "endpoint1",
                "parameters": {
                    "weight": [
                        {"filter": "self_attn", "value": [0.4, 0.4, 0.4, 0.5, 0.5]},
                        {"value": 0.6},
                    ]
                },
            },
        ],
        "parameters": {"density": 0.5, "normalize": False},
        "dtype": "float32",
        "out_dtype": "float16",
    }


def test_a_pairwise_method_goes_from_the_first_endpoint_to_the_second():
    config = space_of("slerp").decode([0.25]).config
    assert config["base_model"] == "endpoint0"
    assert config["parameters"] == {"t": 0.25}
    assert [entry["model"] for entry in config["models"]] == ["endpoint0", "endpoint1"]


def test_methods_without_a_base_are_given_none():
    assert "base_model" not in space_of("linear").decode([0.5, 0.5]).config
    assert space_of("nuslerp").decode([0.5, 0.5]).config["base_model"] == "base"


def test_smooth_groups_are_anchors():
    recipe = space_of("slerp", layer_groups=3, smooth=True).decode([0.0, 0.5, 1.0, 0.25])
    assert recipe.config["parameters"]["t"] == [
        {"filter": "model.layers.", "value": [0.0, 0.5, 1.0]},
        {"value": 0.25},
    ]


@pytest.mark.parametrize(
    "genome", [[0.5], [0.5, 0.5, 0.5], [0.5, 1.01], [-0.01, 0.5], [0.5, float("nan")]]
)
def test_what_is_no_genome_is_refused(genome):
    with pytest.raises(ValueError, match="2 positions in"):
        space_of().decode(genome)


# Genes ------------------------------------------------------------------------------------------


@given(
    low=st.floats(-1e3, 1e3),
    width=st.floats(1e-4, 1e3),
    position=st.floats(0, 1),
)
def test_values_stay_in_range_and_are_rounded(low, width, position):
    gene = Gene("weight", 0, None, 0, low, low + width)
    value = gene.value(position)
    assert gene.low <= value <= gene.high
    assert value in (round(value, 6), gene.low, gene.high)
    assert 0 <= gene.position(value) <= 1


def test_the_ends_are_reached():
    gene = Gene("weight", 0, None, 0, -1.0, 2.0)
    assert (gene.value(0), gene.value(1)) == (-1.0, 2.0)
    assert (gene.position(-7), gene.position(7)) == (0, 1)


def test_equal_values_are_written_equally():
    """JSON tells -0.0 from 0.0, and so would a digest."""
    gene = Gene("weight", 0, None, 0, -1.0, 1.0)
    assert str(gene.value(0.5)) == str(gene.value(0.5 - 1e-8)) == "0.0"
    assert gene.value(0.3 + 1e-9) == gene.value(0.3)


# What one would try by hand -----------------------------------------------------------------------


def test_the_sweep_over_two_endpoints():
    space = space_of("task_arithmetic", {"weight": {"low": 0.0, "high": 1.0}})
    assert sorted(space.uniform_sweep()) == [[0.25, 0.75], [0.5, 0.5], [0.75, 0.25], [1.0, 1.0]]


def test_the_sweep_of_a_pairwise_method():
    space = space_of("slerp", layer_groups=2)
    assert sorted(space.uniform_sweep()) == [[0.25] * 3, [0.5] * 3, [0.75] * 3]


@pytest.mark.parametrize(("endpoints", "length"), [(2, 3), (3, 12), (4, 6), (5, 10)])
def test_the_sweep_mixes_all_endpoints_and_leaves_them_out(endpoints, length):
    space = space_of("linear", endpoints=endpoints, layer_groups=2, components=["mlp"])
    sweep = space.uniform_sweep()
    assert len(sweep) == length
    for genome in sweep:
        # Each model has two groups of mlp and the rest: the same weight in all of them.
        shares = [set(genome[3 * model : 3 * model + 3]) for model in range(endpoints)]
        assert all(len(values) == 1 for values in shares)
        assert sum(min(values) for values in shares) == 1
        assert max(max(values) for values in shares) < 1


@given(space=spaces())
def test_the_sweep_has_no_duplicates_and_decodes(space):
    sweep = space.uniform_sweep()
    assert sweep
    assert len({tuple(genome) for genome in sweep}) == len(sweep)
    assert all(len(genome) == space.dimension for genome in sweep)
    for genome in sweep:
        space.decode(genome)


def test_mixtures_that_a_range_makes_equal_are_tried_once():
    narrow = space_of("linear", {"weight": {"low": 0.5, "high": 1.0}}, endpoints=3)
    decoded = [narrow.decode(genome).to_yaml() for genome in narrow.uniform_sweep()]
    assert len(set(decoded)) == len(decoded) < 12
    no_weight = space_of("sce")
    assert no_weight.uniform_sweep() == [[0.5]]


def test_a_mixture_goes_to_the_nearest_allowed_weights():
    space = space_of("ties", {"weight": {"low": 0.5, "high": 1.5}, "density": 0.5})
    assert space.mixture([0.25, 1.0]) == [0.0, 0.5]
    space = space_of("ties", METHODS["ties"])
    assert space.mixture([0.0, 1.5]) == [0.0, 1.0, 0.5, 0.5]


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ({"layer_groups": 6}, r"^merge.layer_groups: 6 groups, .* 5 layers; allowed: 1 to 5$"),
        ({"components": ["atn"]}, r"^merge.components: 'atn' is in no .* model\.layers\.0\.self"),
        ({"components": ["mlp", "mlp"]}, "^merge.components: every tensor of 'mlp' belongs"),
        ({"components": ["self_attn", "q_proj"]}, "'q_proj' belongs .* narrower one first"),
    ],
)
def test_sets_that_the_model_does_not_have(merge, message):
    with pytest.raises(InputError, match=message):
        space_of(**merge)


def test_a_narrower_component_may_come_first():
    assert space_of(components=["q_proj", "self_attn"], layer_groups=5).dimension == 2 * 11


# Layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "prefix", "count"),
    [
        (LLAMA, "model.layers.", LAYERS),
        (
            ["transformer.wte.weight", "transformer.h.0.ln_1.bias", "transformer.h.11.ln_1.bias"],
            "transformer.h.",
            12,
        ),
        (["wte.weight", "h.0.ln_1.bias", "h.1.ln_1.bias", "ln_f.bias"], "h.", 2),
        (
            [
                f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"
                for layer in range(2)
                for expert in range(8)
            ],
            "model.layers.",
            2,
        ),
        # A small tower of pictures beside the language model.
        (
            ["vision.blocks.0.w", "vision.blocks.1.w", *(f"text.layers.{n}.w" for n in range(3))],
            "text.layers.",
            3,
        ),
        (reversed(LLAMA), "model.layers.", LAYERS),
    ],
)
def test_layers_are_found_by_their_numbers(names, prefix, count):
    layers = LayerNames.find(names)
    assert (layers.prefix, layers.count) == (prefix, count)


def test_a_model_without_layers():
    with pytest.raises(InputError, match=r"^base: no tensor's name holds a layer's number"):
        LayerNames.find(["embed.weight", "conv1d.weight"])
