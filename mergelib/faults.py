"""Pydantic's faults, in the words of this project: one line each, with the key and what may be."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from mergelib.errors import unknown

_UNION_TAGS = {
    "<range>",
    "<value>",
    "<one>",
    "<several>",
    "literal['auto']",
    "constrained-int",
    "<bool>",
    "<race>",
    "<task>",
    "<file>",
    "<name>",
    "<number>",
}


def one_line_each(faults: Iterable[Any], model: type[BaseModel]) -> Iterator[str]:
    """Say each of pydantic's faults as "key.path: value: what is allowed".

    Args:
        faults: `ValidationError.errors()`.
        model: the model that was to be made.
    """
    by_path: dict[tuple[Any, ...], list[Any]] = {}
    for fault in faults:
        path = tuple(part for part in fault["loc"] if part not in _UNION_TAGS)
        by_path.setdefault(path, []).append(fault)
    for path, same_key in by_path.items():
        # pydantic counts only the faultless entries of a list.
        inner = any(other[: len(path)] == path and other != path for other in by_path)
        if not (inner and same_key[0]["type"] == "too_short"):
            yield _one_line(path, same_key, model)


def _one_line(path: tuple[Any, ...], faults: Sequence[Any], model: type[BaseModel]) -> str:
    """Say what is wrong with one key; several faults are the alternatives of a union."""
    key = ".".join(str(part) for part in path)
    kind, value = faults[0]["type"], faults[0]["input"]
    if kind == "extra_forbidden":
        *parents, last = path
        return f"{key}: " + unknown("a key here", str(last), _keys_at(model, parents))
    if kind == "missing":
        return f"{key}: is required"
    if kind == "too_short":
        context = faults[0]["ctx"]
        noun = "entries" if context["min_length"] > 1 else "entry"
        return (
            f"{key}: at least {context['min_length']} {noun} needed, "
            f"{context['actual_length']} given"
        )
    if kind == "value_error":
        message = str(faults[0]["msg"]).removeprefix("Value error, ")
        return message if message.startswith(key) else f"{key}: {message}"
    messages = ", or ".join(fault["msg"][0].lower() + fault["msg"][1:] for fault in faults)
    shapes = {"model_type": "mapping of keys", "dict_type": "mapping", "tuple_type": "list"}
    if kind in shapes:
        messages = f"must be a {shapes[kind]}"
    kinds = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return f"{key}: {kinds.get(type(value)) or repr(value)}: {messages}"


def _keys_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """The keys that may stand at a place in a document."""
    for part in path:
        # What is no field of a model is a key of a mapping or a position in a list.
        if part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type names, itself or in its arguments."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
