import copy
import math
import re
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from mergekit.merge_methods import get
from mergekit.merge_methods.base import TensorGroup

from mergelib.merging.methods import merge_methods
from mergelib.merging.validation import degenerate_weights, recipe_faults, unmatched_filters

WEIGHT = {"weight": 0.5}
EACH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "breadcrumbs": ({"density": 0.9, "gamma": 0.01}, WEIGHT),
    "della": ({"density": 0.7, "epsilon": 0.1}, WEIGHT),
}
SHARED: dict[str, dict[str, Any]] = {
    "arcee_fusion": {},
    "karcher": {"max_iter": 5, "tol": "1e-5"},
    "model_stock": {"filter_wise": False},
    "nearswap": {"t": 1e-4},
    "ram": {"epsilon": 1e-5},
    "ramplus_tl": {"r": 0.1, "alpha": 0.2},
    "sce": {"select_topk": 0.5, "int8_mask": True},
    "slerp": {"t": [0, 0.5, 0.3, 0.7, 1]},
}
"""What the methods without weights get; the others get a weight for each model."""


def of_method(method: str) -> dict[str, Any]:
    names = {"passthrough": ["one"]}.get(method, ["one", "two"])
    document: dict[str, Any] = {"merge_method": method, "models": [{"model": n} for n in names]}
    if method not in ("linear", "karcher", "passthrough"):
        pair = method in ("slerp", "nearswap", "arcee_fusion")
        document["base_model"] = "one" if pair else "base"
    if method in SHARED:
        return {**document, "parameters": SHARED[method]}
    own = EACH.get(method, ({"scale": 0.5} if method == "passthrough" else WEIGHT,) * 2)
    for model, parameters in zip(document["models"], own, strict=False):
        model["parameters"] = {**({} if method == "passthrough" else WEIGHT), **parameters}
    return document


GOOD = {
    "frankenmerge": """
        slices:
        - sources: [{model: org/one-7B, layer_range: [0, 24]}]
        - sources: [{model: "org/two-7B@main+org/adapter", layer_range: [8, 32]}]
        merge_method: passthrough
        dtype: torch.float16
    """,
    "scaled layers, as in block expansion": """
        slices:
        - sources: [{model: one, layer_range: [0, 4]}]
        - sources:
          - model: one
            layer_range: [3, 4]
            parameters:
              scale: [{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0}, {value: 1.0}]
        merge_method: passthrough
    """,
    "slerp by layers": """
        slices:
        - sources:
          - {model: one, layer_range: [0, 32]}
          - {model: two, layer_range: [0, 32]}
        merge_method: slerp
        base_model: one
        parameters:
          t:
          - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
          - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
          - value: 0.5
        dtype: bfloat16
    """,
    "ties with the base listed, text for a number, and truths as mergekit evolves them": """
        models:
        - model: base
        - {model: one, parameters: {density: 0.5, weight: "3e-1"}}
        - {model: two, parameters: {density: [1, 0.7, 0.1], weight: [{filter: "*", value: 1}]}}
        merge_method: ties
        base_model: {model: {path: base}, lora: null}
        parameters: {normalize: 1.0, int8_mask: true, lambda: 0.9}
        dtype: float32
        out_dtype: float16
        chat_template: auto
    """,
    "one weight for all, the base model's too": """
        models: [{model: one}, {model: two}]
        merge_method: linear
        base_model: base
        parameters: {weight: 1, normalize: [true, false]}
        tokenizer_source: base
    """,
    "a slice's own base model and parameters": """
        slices:
        - base_model: two
          sources:
          - {model: one, layer_range: [0, 2], parameters: {weight: 1}}
          - {model: two, layer_range: [4, 6]}
          parameters: {density: 0.5}
        merge_method: task_arithmetic
        base_model: one
        tokenizer_source: one
    """,
    "modules": """
        modules:
          text_decoder:
            slices:
            - sources: [{model: one, layer_range: [0, 8], parameters: {weight: 1}}]
          vision_tower:
            models: [{model: one, parameters: {weight: 1}}]
            parameters: {normalize: false}
        merge_method: linear
    """,
    "tokenizer": """
        models: [{model: one, parameters: {weight: 1}}, {model: two, parameters: {weight: .5}}]
        merge_method: dare_ties
        base_model: base
        tokenizer:
          source: union
          pad_to_multiple_of: 64
          tokens:
            <|im_start|>: {source: two}
            <|im_end|>: {source: {kind: model_token, model: one, token_id: 2}, force: true}
            <pad>: {source: {kind: model_token, model: base, token: "<s>"}}
            <unused>: {source: {kind: zero}}
    """,
    "a filter without a catch-all": """
        models: [{model: one, parameters: {weight: {filter: mlp, value: [0, 1]}}}, {model: two}]
        merge_method: task_arithmetic
        base_model: two
    """,
    "density and epsilon that fit where both hold": """
        models:
        - model: one
          parameters:
            weight: 1
            density: [{filter: mlp, value: 0.9}, {filter: norm, value: 1}, {value: 0.5}]
            epsilon: [{filter: mlp, value: 0.05}, {value: 0.3}]
        merge_method: della
        base_model: base
    """,
}


@pytest.mark.parametrize("method", sorted(merge_methods()))
def test_a_plain_recipe_of_each_method_has_no_fault(method):
    document = of_method(method)
    assert recipe_faults(document) == []
    MergeConfiguration.model_validate(document)


@pytest.mark.parametrize("name", GOOD)
def test_recipes_as_they_are_published_have_no_fault(name):
    document = yaml.safe_load(GOOD[name])
    assert recipe_faults(document, {"one": 32, "two": 32}) == []
    MergeConfiguration.model_validate(document)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, math.nan, "a+b+c", "a@b@c", "\n", ""]),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.dates(),
)
KEYS = st.one_of(JUNK, st.sampled_from(sorted(MergeConfiguration.model_fields)))
ANYTHING = st.recursive(
    JUNK, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
STARTS = [*(yaml.safe_load(text) for text in GOOD.values()), *map(of_method, merge_methods())]


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = enumerate(node) if isinstance(node, list) else ()
    inner = node.items() if isinstance(node, dict) else inner
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A good recipe in which up to three values are replaced by anything."""
    document = {"": copy.deepcopy(draw(st.sampled_from(STARTS)))}
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = ("", *draw(st.sampled_from(places(document[""]))))
        node: Any = document
        for key in parents:
            node = node[key]
        node[last] = draw(ANYTHING)
    return document[""]


@given(st.one_of(ANYTHING, damaged()))
def test_whatever_the_document_is_only_lines_come_and_mergekit_takes_what_has_none(document):
    lines = recipe_faults(document)
    assert all(isinstance(line, str) and "\n" not in line for line in lines)
    if not lines:
        MergeConfiguration.model_validate(document)


def test_a_document_that_holds_itself_ends():
    document = yaml.safe_load("&a {merge_method: linear, models: &b [*b], parameters: *a}")
    assert recipe_faults(document)


NAMES = ["model.norm.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"]


def test_filters_that_hold_for_no_tensor_are_named():
    weight = [{"filter": "mpl", "value": 1}, {"filter": "mlp", "value": 1}]
    document = {
        "merge_method": "linear",
        "slices": [
            {
                "sources": [
                    {"model": "one", "layer_range": [0, 1], "parameters": {"weight": weight[:1]}}
                ],
                "parameters": {"weight": {"filter": "Norm", "value": 1}},
            }
        ],
        "parameters": {"weight": [*weight, {"filter": "*", "value": 1}]},
    }
    looks = "is in no tensor's name; names look like model.layers.0.mlp.up_proj.weight"
    assert unmatched_filters(document, NAMES) == [
        f"parameters.weight.0.filter: 'mpl' {looks}",
        f"slices.0.parameters.weight.filter: 'Norm' {looks}",
        f"slices.0.sources.0.parameters.weight.0.filter: 'mpl' {looks}",
    ]
    assert unmatched_filters(yaml.safe_load(GOOD["slerp by layers"]), {"x.self_attn.mlp"}) == []


@pytest.mark.parametrize(
    ("method", "shared", "weights", "outcome"),
    [
        ("linear", {}, (1, -1), "linear divides by that sum"),
        ("linear", {"normalize": True}, (0.1, 0.2, -0.3), "linear divides by that sum"),
        ("linear", {}, (0.0,), "linear divides by that sum"),
        ("linear", {"normalize": False}, (1, -1), None),
        ("linear", {}, (1, -1 + 1e-7), None),
        ("multislerp", {}, (0.5, -0.5), "multislerp divides by that sum"),
        ("multislerp", {"normalize_weights": False}, (0.5, -0.5), None),
        ("multislerp", {}, (0.0,), None),
        ("nuslerp", {}, (0.0, 0.0), "nuslerp merges in equal parts instead"),
        ("nuslerp", {}, (3e-7, 0.0), "nuslerp merges in equal parts instead"),
        ("task_arithmetic", {}, (1, -1), None),
        ("task_arithmetic", {"normalize": True}, (1, -1), "task_arithmetic leaves them unnorm"),
        ("dare_linear", {"normalize": True}, (0.0,), "dare_linear leaves them unnormalised"),
        ("breadcrumbs", {"normalize": True}, (1e-9, 0), "breadcrumbs leaves them unnormalised"),
        ("della_linear", {"normalize": True}, (), None),
        ("ties", {}, (1, -1), None),
        ("della", {"normalize": True}, (0.0,), None),
        ("dare_ties", {"normalize": True}, (1, -1), None),
        ("breadcrumbs_ties", {"normalize": True}, (1, -1), None),
        ("karcher", {}, (), None),
        ("slerp", {"t": 0.5}, (0.0,), None),
    ],
)
def test_weights_that_cannot_be_normalised(method, shared, weights, outcome):
    reason = degenerate_weights(method, shared, weights)
    assert (reason is None) == (outcome is None)
    if reason and outcome:
        assert re.fullmatch(
            rf"the weights sum to [-\de.]+ and cannot be normalised: {outcome}.*", reason
        )


@pytest.mark.parametrize(
    "method", [m for m, spec in merge_methods().items() if "weight" in str(spec.parameters)]
)
def test_mergekit_does_with_a_zero_sum_what_is_said_of_it(method):
    base, one, two = torch.tensor(
        [[1.0, 2.0, 0.5], [2.0, 1.0, 3.0], [-3.0, 5.0, 1.0]], dtype=torch.float64
    )
    without_base = method in ("linear", "multislerp", "nuslerp")
    group = TensorGroup.from_tensors(
        [one, two] if without_base else [one, two, base], base_index=None if without_base else 2
    )
    names = {spec.name for spec in merge_methods()[method].parameters}
    shared = {"normalize": True} if "normalize" in names else {}

    def merged(*weights: float) -> torch.Tensor:
        return get(method)((group,), parameters={"weight": weights, **shared})[0]

    reason = degenerate_weights(method, shared, (1, -1)) or ""
    if "divides by that sum" in reason:
        assert not merged(1, -1).isfinite().all()
    elif "in equal parts instead" in reason:
        assert torch.equal(merged(1, -1), merged(0.5, 0.5))
    elif "unnormalised instead" in reason:
        torch.testing.assert_close(merged(2, -2) - base, 2 * (one - two))
    else:
        assert not reason
        assert merged(1, -1).isfinite().all()
