from typing import Any

import pytest

from mergelib.merging.validation import recipe_faults


def slices(*ranges: Any, **more: Any) -> list[dict[str, Any]]:
    models = ("one", "two", "three")
    sources = [
        {"model": m, "layer_range": r, "parameters": {"weight": 1}}
        for m, r in zip(models, ranges, strict=False)
    ]
    return [{"sources": sources, **more}]


ONE, TWO = ({"model": m, "parameters": {"weight": 1}} for m in ("one", "two"))
HERE = "is not a key here; did you mean"
TIES = {"merge_method": "ties", "base_model": "base", "models": [ONE, TWO]}
LINEAR = {"merge_method": "linear", "models": [ONE, TWO]}
SLICED = {"merge_method": "linear", "slices": slices([0, 4], [0, 4])}
SLERP = {"merge_method": "slerp", "base_model": "one", "parameters": {"t": 0.5}}
PAIR = {**SLERP, "models": [{"model": "one"}, {"model": "two"}]}

BAD: list[tuple[Any, str]] = [
    # The document and its keys
    (None, "recipe: nothing must be a mapping of keys"),
    ([LINEAR], "recipe: a list must be a mapping"),
    ({**LINEAR, "dtpye": "float16"}, f"dtpye: 'dtpye' {HERE} 'dtype'? Allowed: base_model"),
    ({**LINEAR, 1: 2}, "1: '1' is not a key here; Allowed"),
    ({"models": [ONE]}, "merge_method: is required; Allowed: arcee_fusion"),
    ({**LINEAR, "merge_method": "liner"}, "merge_method: 'liner' is not a merge method; did you"),
    ({**LINEAR, "merge_method": []}, "merge_method: a list must be a merge method's name"),
    ({**LINEAR, "dtype": "float8"}, "dtype: 'float8' is not a type of weights; did you mean"),
    ({**LINEAR, "out_dtype": 16}, "out_dtype: 16 must be a type of weights"),
    ({"merge_method": "linear"}, "models: nothing says what is merged; give models, slices or"),
    ({**LINEAR, "slices": SLICED["slices"]}, "slices: stands beside models; give one of models"),
    ({**LINEAR, "models": {}}, "models: a mapping must be a list"),
    ({**LINEAR, "models": []}, "models: the list is empty; at least one entry"),
    ({"merge_method": "linear", "modules": {"t": {}}}, "modules.t: nothing says what is merged;"),
    ({"merge_method": "linear", "modules": {}}, "modules: a mapping must be a mapping of at least"),
    (
        {"merge_method": "linear", "modules": {"t": {"model": [], "models": [ONE]}}},
        f"modules.t.model: 'model' {HERE} 'models'?",
    ),
    # Models
    ({**LINEAR, "models": ["one"]}, "models.0: 'one' must be a mapping {model: ..., ...}"),
    ({**LINEAR, "models": [{**ONE, "parameter": 1}]}, f"models.0.parameter: 'parameter' {HERE}"),
    ({**LINEAR, "models": [{"parameters": {}}]}, "models.0.model: is required"),
    ({**LINEAR, "models": [{**ONE, "model": " "}]}, "models.0.model: ' ' must be a model's folder"),
    ({**LINEAR, "models": [{**ONE, "model": 7}]}, "models.0.model: 7 must be a model's folder"),
    ({**LINEAR, "models": [{**ONE, "model": "c++/a"}]}, "models.0.model: 'c++/a' is no model to"),
    (
        {**LINEAR, "models": [{**ONE, "model": {"model": {"path": "a", "revison": "b"}}}]},
        f"models.0.model.model.revison: 'revison' {HERE} 'revision'?",
    ),
    ({**LINEAR, "models": [ONE, ONE]}, "models.1.model: 'one' is named twice"),
    ({**TIES, "base_model": None}, "base_model: is required by ties; name the model"),
    (
        {**PAIR, "base_model": "c"},
        "models: slerp merges exactly 2 models; 3 given, with 'c', which",
    ),
    ({**PAIR, "models": [{"model": "one"}]}, "models: slerp merges exactly 2 models; 1 given"),
    ({**TIES, "merge_method": "model_stock", "models": [{"model": "one"}]}, "models: model_stock "),
    (
        {**TIES, "merge_method": "nuslerp", "models": [ONE, TWO, {**ONE, "model": "three"}]},
        "models: nuslerp merges exactly 2 models beside the base model; 3 given, with 'base'",
    ),
    (
        {**LINEAR, "base_model": "base"},
        "base_model: mergekit adds 'base' to the models, and linear",
    ),
    # Slices
    (
        {**TIES, "models": None, "slices": slices([0, 1], [0, 1])},
        "slices.0.sources: the base model 'base' is not among the sources; mergekit adds it to",
    ),
    ({**SLICED, "slices": [{}]}, "slices.0.sources: is required"),
    ({**SLICED, "slices": [{"sources": []}]}, "slices.0.sources: the list is empty"),
    ({**SLICED, "slices": slices([0, 1], sorces=[])}, f"slices.0.sorces: 'sorces' {HERE} 'sour"),
    ({**SLICED, "base_model": "a+b+c"}, "base_model: 'a+b+c' is no model to mergekit"),
    (
        {**SLICED, "slices": slices([0, 16**9999])},
        "slices.0.sources.0.layer_range: [0, a huge number] goes past the 8 layers of one",
    ),
    ({**SLICED, "slices": slices([0, 1], residual_weight=1)}, "slices.0.residual_weight: 1 has no"),
    (
        {**SLICED, "slices": slices([0, 4], [0, 3])},
        "slices.0.sources.1.layer_range: spans 3 layers",
    ),
    (
        {**SLICED, "slices": slices([0, 9])},
        "slices.0.sources.0.layer_range: [0, 9] goes past the 8",
    ),
    ({**SLICED, "slices": slices([4, 4])}, "slices.0.sources.0.layer_range: [4, 4] must have 0 <="),
    (
        {**SLICED, "slices": slices([0, 1.5])},
        "slices.0.sources.0.layer_range: [0, 1.5] must be two",
    ),
    ({**SLICED, "slices": slices([True, 2])}, "slices.0.sources.0.layer_range: [True, 2] must be"),
    (
        {**SLICED, "slices": [{"sources": [ONE]}]},
        "slices.0.sources.0.layer_range: is required: the first layer",
    ),
]


@pytest.mark.parametrize(("document", "start"), BAD, ids=[start[:60] for _, start in BAD])
def test_each_fault_is_one_line_with_key_value_and_remedy(document, start):
    (line,) = recipe_faults(document, {"one": 8, "two": 8})
    assert line.startswith(start)
    assert "\n" not in line
