"""What a recipe says of the merged model's tokenizer: its source, single tokens, chat template."""

from collections.abc import Iterator, Mapping
from typing import Any

from mergekit.tokenizer.config import (
    ModelTokenEmbedding,
    TokenEmbeddingConfig,
    TokenizerConfig,
    ZeroEmbedding,
)

from mergelib.errors import unknown
from mergelib.merging.documents import (
    at,
    inputs_of,
    key_faults,
    kind_fault,
    model_faults,
    model_of,
    reference,
    shown,
)

_SOURCES = ("union", "base")


def tokenizer_faults(document: Mapping[Any, Any]) -> Iterator[str]:
    """What is wrong with tokenizer_source, tokenizer and chat_template."""
    source, tokenizer = document.get("tokenizer_source"), document.get("tokenizer")
    template = document.get("chat_template")
    if template is not None and not isinstance(template, str):
        yield kind_fault("chat_template", template, "text: 'auto', a template's name or itself")
    if source is not None and tokenizer is not None:
        yield "tokenizer_source: stands beside tokenizer; keep one, as tokenizer.source"
    models = _models(document)
    if source is not None:
        yield from _source_faults(source, "tokenizer_source", models)
    if tokenizer is None:
        return
    yield from key_faults(tokenizer, "tokenizer", TokenizerConfig)
    if not isinstance(tokenizer, Mapping):
        return
    if "source" in tokenizer:
        yield from _source_faults(tokenizer["source"], "tokenizer.source", models)
    multiple = tokenizer.get("pad_to_multiple_of")
    if multiple is not None and (type(multiple) is not int or multiple < 1):
        yield kind_fault("tokenizer.pad_to_multiple_of", multiple, "a whole number above 0")
    tokens = tokenizer.get("tokens")
    if tokens is not None and not isinstance(tokens, Mapping):
        yield kind_fault("tokenizer.tokens", tokens, "a mapping of tokens to {source, force}")
    for token, settings in tokens.items() if isinstance(tokens, Mapping) else ():
        path = at("tokenizer.tokens", token)
        if not isinstance(token, str):
            yield kind_fault(path, token, "a token's text; put it in quotes")
        yield from key_faults(settings, path, TokenEmbeddingConfig)
        if isinstance(settings, Mapping):
            if not isinstance(settings.get("force", False), bool):
                yield kind_fault(at(path, "force"), settings["force"], "true or false")
            if settings.get("source") is not None:
                yield from _token_faults(settings["source"], at(path, "source"), models)


def _models(document: Mapping[Any, Any]) -> dict[Any, str]:
    """The recipe's models that can be read, each with its name."""
    values = [document.get("base_model")]
    for inputs in inputs_of(document):
        values += [inputs.base, *map(model_of, inputs.entries)]
    return {model: str(model) for model in map(reference, values) if model is not None}


def _source_faults(source: Any, path: str, models: Mapping[Any, str]) -> Iterator[str]:
    if isinstance(source, str) and source in _SOURCES:
        return
    yield from _model_faults(source, path, models, _SOURCES)


def _model_faults(
    value: Any, path: str, models: Mapping[Any, str], others: tuple[str, ...] = ()
) -> Iterator[str]:
    model = reference(value)
    if isinstance(value, Mapping) or model is None:
        yield from model_faults(value, path)
    if model is not None and model not in models:
        kind = "one of this recipe's models" + "".join(f" or {other!r}" for other in others)
        yield f"{path}: " + unknown(kind, str(model)[:80], (*others, *models.values()))


def _token_faults(source: Any, path: str, models: Mapping[Any, str]) -> Iterator[str]:
    """What is wrong with where a token's embedding comes from: a model, its token, or zeros."""
    if not isinstance(source, Mapping) or "kind" not in source:
        yield from _model_faults(source, path, models)
        return
    kinds = {"model_token": ModelTokenEmbedding, "zero": ZeroEmbedding}
    kind = source["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        yield f"{at(path, 'kind')}: " + unknown("a kind of embedding", shown(kind), kinds)
        return
    yield from key_faults(source, path, kinds[kind])
    if kind == "zero":
        return
    yield from _model_faults(source.get("model"), at(path, "model"), models)
    if (source.get("token") is None) == (source.get("token_id") is None):
        yield f"{at(path, 'token')}: exactly one of token and token_id must be given"
    if not isinstance(source.get("token"), str | None):
        yield kind_fault(at(path, "token"), source["token"], "a token's text; put it in quotes")
    token_id = source.get("token_id")
    if token_id is not None and (type(token_id) is not int or token_id < 0):
        yield kind_fault(at(path, "token_id"), token_id, "a whole number from 0 on")
