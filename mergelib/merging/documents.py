"""The parts of a mergekit document, which may be anything: keys, models, lists of inputs.

What is read here never raises, whatever the YAML held; what is at fault comes as lines.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mergekit.common import ModelPath, ModelReference

from mergelib.errors import unknown


class Scope(NamedTuple):
    """The parameters given in one place, and the place's path."""

    path: str
    settings: Mapping[Any, Any]


class Inputs(NamedTuple):
    """The models that are merged with each other: a `models` list, or one slice's sources.

    Attributes:
        path: where the list stands.
        entries: its entries.
        scopes: the parameters for all entries, from the narrowest scope to the widest.
        base: the base model as it is written, or None.
        base_path: where it stands, or would stand.
        is_slice: whether the entries are layers of models; mergekit then adds no base model.
    """

    path: str
    entries: Sequence[Any]
    scopes: tuple[Scope, ...]
    base: Any
    base_path: str
    is_slice: bool

    def own_scope(self, position: int) -> Scope:
        """The parameters of one entry alone."""
        return scope_of(self.entries[position], f"{self.path}.{position}")


def shown(value: Any) -> str:
    """A value in a message: short, in one line."""
    for kind, name in ((Mapping, "a mapping"), (list, "a list"), (set, "a set")):
        if isinstance(value, kind):
            return name
    if value is None:
        return "nothing"
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits.
        return "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def at(path: str, key: Any) -> str:
    """The dotted path of a key below another."""
    last = key[:80] if isinstance(key, str) and key.isprintable() and key else shown(key)
    return f"{path}.{last}" if path else last


def kind_fault(path: str, value: Any, what: str) -> str:
    """The line for a value that is of the wrong kind."""
    return f"{path}: {shown(value)} must be {what}"


def key_faults(value: Any, path: str, *models: Any, what: str = "a mapping") -> Iterator[str]:
    """A line if a value is no mapping, else one for each key that mergekit does not know.

    Args:
        value: what stands at the path.
        path: its path; empty for the document.
        models: mergekit's pydantic models, whose fields are the keys.
        what: what the value must be.
    """
    if not isinstance(value, Mapping):
        yield kind_fault(path or "document", value, what)
        return
    allowed = [name for model in models for name in model.model_fields]
    for key in value:
        if key not in allowed:
            name = key if isinstance(key, str) else shown(key)
            yield f"{at(path, key)}: " + unknown("a key here", name[:80], allowed)


def scope_of(holder: Any, path: str) -> Scope:
    """The parameters of a model, slice, module or document; none if there are none."""
    settings = holder.get("parameters") if isinstance(holder, Mapping) else None
    return Scope(at(path, "parameters"), settings if isinstance(settings, Mapping) else {})


def entries_of(holder: Any, key: str) -> list[Any]:
    """The list under a key; empty if there is none."""
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return value if isinstance(value, list) else []


def holders_of(document: Any) -> list[tuple[str, Any]]:
    """What may have `models` or `slices`: the document and each of its modules, with its path."""
    modules = document.get("modules") if isinstance(document, Mapping) else None
    named = modules.items() if isinstance(modules, Mapping) else ()
    return [("", document), *((at("modules", name), module) for name, module in named)]


def inputs_of(document: Any) -> Iterator[Inputs]:
    """Each list of models that are merged with each other."""
    whole = scope_of(document, "")
    base = document.get("base_model") if isinstance(document, Mapping) else None
    for path, holder in holders_of(document):
        scopes = (scope_of(holder, path), whole) if path else (whole,)
        if models := entries_of(holder, "models"):
            yield Inputs(at(path, "models"), models, scopes, base, "base_model", False)
        for position, part in enumerate(entries_of(holder, "slices")):
            here = at(at(path, "slices"), position)
            own = part.get("base_model") if isinstance(part, Mapping) else None
            if sources := entries_of(part, "sources"):
                yield Inputs(
                    path=at(here, "sources"),
                    entries=sources,
                    scopes=(scope_of(part, here), *scopes),
                    base=own or base,
                    base_path=at(here, "base_model") if own else "base_model",
                    is_slice=True,
                )


def model_of(entry: Any) -> Any:
    """The model that an entry of a list of inputs names."""
    return entry.get("model") if isinstance(entry, Mapping) else None


def reference(value: Any) -> ModelReference | None:
    """The model as mergekit reads and compares it; None if it cannot be read."""
    if not isinstance(value, str | Mapping):
        return None
    try:
        model = ModelReference.model_validate(value if isinstance(value, str) else dict(value))
    except (RuntimeError, ValueError, TypeError):
        return None
    paths = [model.model.path, *([model.lora.path] if model.lora else [])]
    return model if all(path.strip() for path in paths) else None


def model_faults(value: Any, path: str) -> Iterator[str]:
    """What is wrong with a model's name, or with mergekit's mapping in its place."""
    if isinstance(value, Mapping):
        yield from key_faults(value, path, ModelReference)
        for part in ("model", "lora"):
            if isinstance(value.get(part), Mapping):
                yield from key_faults(value[part], at(path, part), ModelPath)
    if reference(value) is not None:
        return
    if isinstance(value, str) and value.strip():
        yield (
            f"{path}: {shown(value)} is no model to mergekit, which reads '+' as the start of an "
            "adapter and '@' as that of a revision; write {model: {path: ...}} in its place"
        )
    else:
        what = "a model's folder or repository, or {model: {path: ...}, lora: {path: ...}}"
        yield kind_fault(path, value, what)
