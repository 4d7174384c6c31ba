import math
from typing import Any

import pytest

from mergelib.merging.validation import recipe_faults

ONE, TWO = ({"model": m, "parameters": {"weight": 1}} for m in ("one", "two"))
HERE = "is not a key here; did you mean"
TIES = {"merge_method": "ties", "base_model": "base", "models": [ONE, TWO]}
LINEAR = {"merge_method": "linear", "models": [ONE, TWO]}
SLERP = {"merge_method": "slerp", "base_model": "one", "parameters": {"t": 0.5}}
PAIR = {**SLERP, "models": [{"model": "one"}, {"model": "two"}]}


def tie(**parameters: Any) -> dict[str, Any]:
    """TIES whose first model has parameters of its own."""
    entry = {"model": "one", "parameters": {"weight": 1, **parameters}}
    return {**TIES, "models": [entry, TWO]}


BAD: list[tuple[Any, str]] = [
    (
        tie(densty=1),
        "models.0.parameters.densty: 'densty' is not a parameter of ties; did you mean",
    ),
    ({**PAIR, "models": [PAIR["models"][0], TWO]}, "models.1.parameters.weight: 'weight' is not a"),
    (
        {**PAIR, "merge_method": "arcee_fusion"},
        "parameters.t: arcee_fusion takes no parameters; leave it out",
    ),
    (tie(normalize=True), "models.0.parameters.normalize: is one value for all models of ties, so"),
    ({**TIES, "parameters": [1]}, "parameters: a list must be a mapping of parameters to values"),
    (tie(density=1.7), "models.0.parameters.density: 1.7 is out of range; allowed: 0 to 1"),
    (tie(density=[0.5, "2e0"]), "models.0.parameters.density.1: 2 is out of range"),
    (tie(weight=math.nan), "models.0.parameters.weight: nan must be a finite number"),
    (tie(weight="nan"), "models.0.parameters.weight: nan must be a finite number"),
    (tie(weight="much"), "models.0.parameters.weight: 'much' must be a finite number"),
    (tie(weight=True), "models.0.parameters.weight: True must be a finite number"),
    (tie(weight=None), "models.0.parameters.weight: nothing must be one value"),
    (tie(weight=16**9999), "models.0.parameters.weight: a huge number must be a finite number"),
    (tie(weight=[]), "models.0.parameters.weight: an empty list gives no value"),
    (tie(weight=[[1]]), "models.0.parameters.weight.0: a list must be one value"),
    (tie(weight=[{"value": 1}, 2]), "models.0.parameters.weight.1: 2 must be a mapping {filter,"),
    (tie(weight={"filter": "mlp"}), "models.0.parameters.weight.value: is required beside filter"),
    (tie(weight={"value": 1, "filter": 3}), "models.0.parameters.weight.filter: 3 must be text"),
    (
        tie(weight={"valu": 1, "value": 1}),
        f"models.0.parameters.weight.valu: 'valu' {HERE} 'value'",
    ),
    (tie(weight=[{"value": [1, math.inf]}]), "models.0.parameters.weight.0.value.1: inf must be a"),
    ({**TIES, "parameters": {"normalize": 2}}, "parameters.normalize: 2 must be true or false"),
    (
        {
            **LINEAR,
            "merge_method": "passthrough",
            "models": [{**ONE, "parameters": {"scale": "x"}}],
        },
        "models.0.parameters.scale: 'x' must be a finite number",
    ),
    (
        {
            "merge_method": "karcher",
            "models": [{"model": "one"}],
            "parameters": {"max_iter": [5, 8]},
        },
        "parameters.max_iter: a list is interpolated to numbers that are not whole",
    ),
    ({**PAIR, "parameters": {}}, "parameters.t: is required by slerp; give it a value"),
    (
        {**TIES, "models": [ONE, {"model": "two"}]},
        "models.1.parameters.weight: is required by ties; give it here, or for all models as",
    ),
    (
        {**tie(density=0.5), "merge_method": "della", "parameters": {"epsilon": [0.1, 0.5]}},
        "models.0.parameters.density: 0.5 is out of range for della with epsilon 0.5; allowed:",
    ),
    (
        {
            **TIES,
            "merge_method": "della",
            "parameters": {"density": [{"filter": "a", "value": 0.9}]},
        },
        "parameters.density: 0.9 is out of range for della with epsilon 0.15",
    ),
]


@pytest.mark.parametrize(("document", "start"), BAD, ids=[start[:60] for _, start in BAD])
def test_each_fault_is_one_line_with_key_value_and_remedy(document, start):
    (line,) = recipe_faults(document)
    assert line.startswith(start)
    assert "\n" not in line
