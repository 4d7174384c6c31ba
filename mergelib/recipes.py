"""A recipe: a whole mergekit configuration, its canonical form and its digest."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from mergelib.merging.methods import RANDOM_METHODS


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
        """The merged models, the base model not counted unless it is listed as one."""
        return tuple(entry["model"] for entry in self.config["models"])

    def to_yaml(self) -> str:
        """The configuration as mergekit's YAML, numbers in rows."""
        return yaml.dump(dict(self.config), sort_keys=False, default_flow_style=None, width=100)

    @classmethod
    def from_yaml(cls, text: str) -> "Recipe":
        """Read what `to_yaml` wrote."""
        return cls(yaml.safe_load(text))

    def digest(self, fingerprints: Mapping[str, str], seed: int) -> str:
        """What decides the merged tensors: the same digest, the same weights to the bit.

        Args:
            fingerprints: the content fingerprint of each model that the recipe names.
            seed: the search's seed; it counts only where the method draws random numbers.

        Returns:
            64 hexadecimal digits, independent of where the models lie.
        """
        models = [
            {**entry, "model": fingerprints[entry["model"]]} for entry in self.config["models"]
        ]
        content = {**self.config, "models": models}
        if content.get("base_model"):
            content["base_model"] = fingerprints[content["base_model"]]
        if self.method in RANDOM_METHODS:
            content["seed"] = seed
        return canonical_digest(content)
