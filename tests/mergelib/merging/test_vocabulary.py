from typing import Any

import pytest

from mergelib.merging.validation import recipe_faults

LINEAR = {
    "merge_method": "linear",
    "models": [{"model": "one", "parameters": {"weight": 1}}],
}
SOURCE = "tokenizer.tokens.x.source"


def tokens(source: Any) -> dict[str, Any]:
    return {**LINEAR, "tokenizer": {"tokens": {"x": {"source": source}}}}


BAD: list[tuple[Any, str]] = [
    (
        {**LINEAR, "tokenizer_source": "one", "tokenizer": {"source": "union"}},
        "tokenizer_source: stands beside tokenizer; keep one",
    ),
    (
        {**LINEAR, "tokenizer_source": "onion"},
        "tokenizer_source: 'onion' is not one of this recipe",
    ),
    (
        {**LINEAR, "tokenizer": {"sources": "one"}},
        "tokenizer.sources: 'sources' is not a key here; did you mean 'source'",
    ),
    ({**LINEAR, "tokenizer": {"source": None}}, "tokenizer.source: nothing must be a model's"),
    ({**LINEAR, "tokenizer": {"pad_to_multiple_of": 0}}, "tokenizer.pad_to_multiple_of: 0 must be"),
    ({**LINEAR, "tokenizer": {"tokens": {"x": {"forced": 1}}}}, "tokenizer.tokens.x.forced: "),
    ({**LINEAR, "tokenizer": {"tokens": {"x": {"force": 1}}}}, "tokenizer.tokens.x.force: 1 must"),
    (tokens("three"), f"{SOURCE}: 'three' is not one of this recipe's models"),
    (tokens({"kind": "zeros"}), f"{SOURCE}.kind: \"'zeros'\" is not a kind of embedding"),
    (tokens({"kind": "zero", "token": "a"}), f"{SOURCE}.token: 'token' is not a key here"),
    (tokens({"kind": "model_token", "model": "one"}), f"{SOURCE}.token: exactly one of token and"),
    (
        tokens({"kind": "model_token", "model": "one", "token_id": -1}),
        f"{SOURCE}.token_id: -1 must be a whole number from 0 on",
    ),
    ({**LINEAR, "chat_template": ["auto"]}, "chat_template: a list must be text"),
]


@pytest.mark.parametrize(("document", "start"), BAD, ids=[start[:60] for _, start in BAD])
def test_each_fault_is_one_line_with_key_value_and_remedy(document, start):
    (line,) = recipe_faults(document)
    assert line.startswith(start)
    assert "\n" not in line
