"""A recipe: a whole mergekit configuration, its canonical form and its digest."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from mergelib.merging.methods import RANDOM_METHODS

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A recipe is read several times for each candidate, and yaml's own loader takes milliseconds."""


def canonical_digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form: sorted keys, no spaces, no NaN.

    Raises:
        ValueError, TypeError: the value is not plain JSON.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """A mergekit configuration as plain values; `mergekit-yaml` takes what `to_yaml` writes."""

    config: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The merge method's name."""
        return str(self.config["merge_method"])

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that the recipe names, in the order of their first mention."""
        names: dict[str, None] = {}
        self.with_models(lambda name: names.setdefault(name))
        return tuple(names)

    def to_yaml(self) -> str:
        """The configuration as mergekit's YAML, numbers in rows."""
        return yaml.dump(dict(self.config), sort_keys=False, default_flow_style=None, width=100)

    @classmethod
    def from_yaml(cls, text: str) -> "Recipe":
        """Read what `to_yaml` wrote."""
        return cls(yaml.load(text, _LOADER))

    @classmethod
    def of_one(cls, model: str) -> "Recipe":
        """The recipe that gives a model as it is stored."""
        return cls({"merge_method": "passthrough", "models": [{"model": model}]})

    def with_models(self, replace: Callable[[str], Any]) -> dict[str, Any]:
        """The configuration with something else in the place of each model's name.

        Args:
            replace: takes a model's name as the recipe gives it.
        """
        return {key: _replaced(key, value, replace) for key, value in self.config.items()}

    def digest(self, fingerprints: Mapping[str, str], seed: int) -> str:
        """What decides the merged tensors: the same digest, the same weights to the bit.

        Args:
            fingerprints: the content fingerprint of each model that the recipe names.
            seed: the search's seed; it counts only where the method draws random numbers.

        Returns:
            64 hexadecimal digits, independent of where the models lie.
        """
        content = self.with_models(fingerprints.__getitem__)
        if self.method in RANDOM_METHODS:
            content["seed"] = seed
        return canonical_digest(content)


_WORDS = ("union", "base")
"""What a tokenizer's source may be beside a model."""


def _replaced(key: str, value: Any, replace: Callable[[str], Any]) -> Any:
    """Put something else in the place of every model's name below a key of mergekit's YAML."""
    if isinstance(value, str):
        names_model = key in ("model", "base_model") or (
            key in ("source", "tokenizer_source") and value not in _WORDS
        )
        return replace(value) if names_model else value
    if key == "parameters":
        return value
    if isinstance(value, Mapping):
        return {name: _replaced(name, part, replace) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(key, part, replace) for part in value]
    return value
