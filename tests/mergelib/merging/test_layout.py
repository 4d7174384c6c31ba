"""Parameters resolved for what was planned before, held to mergekit's planner."""

import copy

import pytest

from mergelib.merging import mergekit
from mergelib.merging.layout import RecordingPlanner, structure
from mergelib.merging.mergekit import MergekitMerger
from mergelib.recipes import Recipe

GRADIENT = [0.2, 1.1]


def filtered(last: float) -> list:
    return [
        {"filter": "mlp", "value": [0.9, 0.1, last]},
        {"filter": "o_proj", "value": 2},
        {"value": 0.7},
    ]


MODELS = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [
        {"model": "base"},
        {"model": "one", "parameters": {"weight": GRADIENT, "density": 0.5}},
        {"model": "two", "parameters": {"weight": filtered(0.4)}},
    ],
    "parameters": {"density": [0.3, 0.9], "normalize": [{"filter": "mlp", "value": False}]},
    "dtype": "float32",
}
SLICES = {
    "merge_method": "ties",
    "base_model": "base",
    "slices": [
        {
            "sources": [
                {"model": "base", "layer_range": layers},
                {"model": "one", "layer_range": layers, "parameters": {"weight": weight}},
                {"model": "two", "layer_range": layers},
            ],
            "parameters": {"weight": filtered(weight)},
        }
        for layers, weight in (([0, 2], 0.3), ([2, 3], 0.6))
    ],
    "parameters": {"density": 0.4, "weight": 1.5},
    "dtype": "float32",
}
MODULES = {
    "merge_method": "ties",
    "base_model": "base",
    "modules": {
        "default": {
            "slices": SLICES["slices"],
            "parameters": {"lambda": [{"filter": "self_attn", "value": 0.5}, {"value": 1}]},
        }
    },
    "parameters": {"density": 0.4, "lambda": 2.0},
}
MODULES_OF_MODELS = {
    **MODULES,
    "modules": {"default": {"models": MODELS["models"], "parameters": {"lambda": 0.5}}},
}


def changed(config: dict) -> dict:
    """The same structure with other numbers."""

    def other(value, key=""):
        if isinstance(value, dict):
            return {k: v if k == "layer_range" else other(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [other(part, key) for part in value]
        return value / 2 if isinstance(value, float) else value

    return other(copy.deepcopy(config))


@pytest.mark.parametrize("config", [MODELS, SLICES, MODULES, MODULES_OF_MODELS])
def test_parameters_are_mergekits_also_where_another_recipe_was_planned(config, llama):
    merger = MergekitMerger(llama.checkpoints, seed=0)
    merger.plan(Recipe(changed(config)))
    plan = merger.plan(Recipe(config))
    fresh = MergekitMerger(llama.checkpoints, seed=0).plan(Recipe(config))
    assert [tensor.name for tensor in plan.tensors] == [tensor.name for tensor in fresh.tensors]
    names = {str(checkpoint.folder): name for name, checkpoint in llama.checkpoints.items()}
    for tensor, planned in zip(plan.tensors, fresh.tensors, strict=True):
        # What mergekit's planner itself resolved.
        theirs = planned._task
        assert dict(theirs.parameters.items()) == tensor.shared
        each = {names[m.model.path]: dict(p.items()) for m, p in theirs.input_parameters.items()}
        assert each == tensor.each
        assert len({tuple(sorted(p.items())) for p in each.values()}) > 1


def test_recipes_that_differ_in_parameters_are_planned_once(llama, monkeypatch):
    made = []

    class Counted(RecordingPlanner):
        def __init__(self, *arguments, **options):
            made.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(mergekit, "RecordingPlanner", Counted)
    merger = MergekitMerger(llama.checkpoints, seed=0)
    for config in (MODELS, changed(MODELS), MODELS, SLICES, changed(SLICES)):
        merger.plan(Recipe(config))
    assert len(made) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"merge_method": "dare_ties"},
        {"dtype": "bfloat16"},
        {"base_model": "two"},
        {"models": MODELS["models"][::-1]},
        {"tokenizer": {"source": "base"}},
    ],
)
def test_what_is_planned_otherwise_has_another_structure(change):
    assert structure(Recipe(MODELS)) == structure(Recipe(changed(MODELS)))
    assert structure(Recipe(MODELS)) != structure(Recipe({**MODELS, **change}))
