"""The space of recipes: a genome in [0, 1]^d decodes to a recipe, and back.

A searched parameter has a gene for each model that it belongs to, each set of tensors and each
group of layers. Sets are the components (tensors whose name holds "self_attn", say) and the rest:
embeddings, norms and the head. Mergekit's filters and gradients say the same in its YAML.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mergelib.errors import InputError
from mergelib.merging.methods import (
    is_pairwise,
    is_per_model,
    merge_methods,
    parameter_spec,
    takes_base,
)
from mergelib.recipes import Recipe
from mergelib.search import Range, Search

Genome = list[float]

_DECIMALS = 6
"""Decoded values are rounded, so that equal recipes are recognised across machines."""


@dataclass(frozen=True)
class LayerNames:
    """How an architecture names the tensors of its layers.

    Attributes:
        prefix: what comes before the layer's number, such as "model.layers.".
        count: how many layers there are.
        names: the names of all tensors.
    """

    prefix: str
    count: int
    names: tuple[str, ...]

    @classmethod
    def find(cls, names: Iterable[str]) -> "LayerNames":
        """Find the layers among a checkpoint's tensor names.

        Raises:
            InputError: no name holds a layer's number.
        """
        names = tuple(names)
        numbered = [m for name in names if (m := re.match(r"(.*?\.|)(\d+)\.", name))]
        if not numbered:
            raise InputError("base: no tensor's name holds a layer's number (model.layers.0. ...)")
        prefix = Counter(m[1] for m in numbered).most_common(1)[0][0]
        count = 1 + max(int(m[2]) for m in numbered if m[1] == prefix)
        return cls(prefix, count, names)


@dataclass(frozen=True)
class Gene:
    """One dimension of the space.

    Attributes:
        parameter: mergekit's name of the parameter.
        model: position of the endpoint that it belongs to; None where all models share it.
        tensors: the filter of its set of tensors; None for all the rest.
        group: position of its group of layers, from the first layer on.
        low: the value at 0.
        high: the value at 1.
    """

    parameter: str
    model: int | None
    tensors: str | None
    group: int
    low: float
    high: float

    def value(self, position: float) -> float:
        """The parameter's value at a position in [0, 1]."""
        value = round(self.low + position * (self.high - self.low), _DECIMALS)
        # Adding zero turns -0.0, which JSON tells from 0.0, into 0.0.
        return min(self.high, max(self.low, value)) + 0.0

    def position(self, value: float) -> float:
        """Where in [0, 1] a value lies; values out of range go to the nearer end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


class Space:
    """All recipes that a search file allows."""

    def __init__(self, search: Search, layers: LayerNames) -> None:
        """Lay out the genes.

        Args:
            search: the search file.
            layers: the layers of the models to merge.

        Raises:
            InputError: a component that no tensor's name holds, or more groups than layers.
        """
        self._search = search
        self._layers = layers
        merge = search.merge
        if merge.layer_groups > layers.count:
            raise InputError(
                f"merge.layer_groups: {merge.layer_groups} groups, but the model has "
                f"{layers.count} layers; allowed: 1 to {layers.count}"
            )
        unclaimed = set(layers.names)
        for component in merge.components:
            named = {name for name in layers.names if component in name}
            if named and not named & unclaimed:
                raise InputError(
                    f"merge.components: every tensor of {component!r} belongs to a component "
                    "named before it; name the narrower one first, and each once"
                )
            unclaimed -= named
            if not named:
                raise InputError(
                    f"merge.components: {component!r} is in no tensor's name; names look like "
                    f"{next(n for n in layers.names if n.startswith(layers.prefix))}"
                )
        self.genes: tuple[Gene, ...] = tuple(self._lay_out())

    @property
    def dimension(self) -> int:
        """The length of a genome."""
        return len(self.genes)

    def _tensor_sets(self) -> list[tuple[str | None, int]]:
        """Each set of tensors as its filter and how many groups of layers it has."""
        groups = self._search.merge.layer_groups
        if self._search.merge.components:
            components = self._search.merge.components
            return [*((c, groups if self._in_layers(c) else 1) for c in components), (None, 1)]
        return [(self._layers.prefix, groups), (None, 1)] if groups > 1 else [(None, 1)]

    def _in_layers(self, component: str) -> bool:
        """Whether a layer has tensors of a component; the embeddings, say, are in none."""
        prefix = self._layers.prefix
        return any(component in n for n in self._layers.names if n.startswith(prefix))

    def _lay_out(self) -> Iterator[Gene]:
        for name, value in self._search.merge.parameters.items():
            if not isinstance(value, Range):
                continue
            per_model = is_per_model(parameter_spec(self._search.merge.method, name))
            owners = range(len(self._search.endpoints)) if per_model else (None,)
            for owner in owners:
                for tensors, groups in self._tensor_sets():
                    for group in range(groups):
                        yield Gene(name, owner, tensors, group, value.low, value.high)

    def decode(self, genome: Sequence[float]) -> Recipe:
        """The recipe that a genome stands for.

        Args:
            genome: (d,), each in [0, 1].

        Raises:
            ValueError: a wrong length, or a position outside [0, 1].
        """
        if len(genome) != self.dimension or not all(0 <= position <= 1 for position in genome):
            raise ValueError(f"a genome has {self.dimension} positions in [0, 1], got {genome}")
        values = {
            gene: gene.value(position) for gene, position in zip(self.genes, genome, strict=True)
        }
        search, method = self._search, self._search.merge.method
        shared = {
            name: value
            for name, value in search.merge.parameters.items()
            if not isinstance(value, Range)
        }
        config: dict[str, Any] = {"merge_method": method}
        if is_pairwise(method):
            config["base_model"] = search.endpoints[0]
        elif takes_base(method) and search.base is not None:
            config["base_model"] = search.base
        config["models"] = [
            {"model": endpoint, "parameters": parameters}
            if (parameters := self._settings(values, owner))
            else {"model": endpoint}
            for owner, endpoint in enumerate(search.endpoints)
        ]
        shared |= self._settings(values, None)
        if shared:
            config["parameters"] = shared
        return Recipe({**config, "dtype": "float32", "out_dtype": search.merge.export_dtype})

    def _settings(self, values: dict[Gene, float], owner: int | None) -> dict[str, Any]:
        """One model's parameters as mergekit's filters and gradients."""
        settings: dict[str, list[dict[str, Any]]] = {}
        for name in dict.fromkeys(gene.parameter for gene in self.genes if gene.model == owner):
            for tensors, _ in self._tensor_sets():
                groups = [
                    value
                    for gene, value in values.items()
                    if (gene.parameter, gene.model, gene.tensors) == (name, owner, tensors)
                ]
                entry: dict[str, Any] = {} if tensors is None else {"filter": tensors}
                entry["value"] = self._gradient(groups)
                settings.setdefault(name, []).append(entry)
        return {
            name: entries[0]["value"] if len(entries) == 1 else entries
            for name, entries in settings.items()
        }

    def _gradient(self, groups: list[float]) -> float | list[float]:
        """The groups' values as mergekit's gradient: one a layer, or anchors where smooth."""
        if len(groups) == 1:
            return groups[0]
        if self._search.merge.smooth:
            return groups
        layers = self._layers.count
        return [groups[layer * len(groups) // layers] for layer in range(layers)]

    def encode(self, recipe: Recipe) -> Genome:
        """The genome of a recipe that `decode` made, up to the rounding of its values."""
        return [gene.position(self._read(recipe, gene)) for gene in self.genes]

    def _read(self, recipe: Recipe, gene: Gene) -> float:
        place = recipe.config if gene.model is None else recipe.config["models"][gene.model]
        setting = place["parameters"][gene.parameter]
        if isinstance(setting, list) and isinstance(setting[0], dict):
            setting = next(entry for entry in setting if entry.get("filter") == gene.tensors)
            setting = setting["value"]
        if not isinstance(setting, list):
            return float(setting)
        if self._search.merge.smooth:
            return float(setting[gene.group])
        groups = self._search.merge.layer_groups
        first_layer = -(-gene.group * self._layers.count // groups)
        return float(setting[first_layer])

    def mixture(self, shares: Sequence[float]) -> Genome:
        """The genome that gives each endpoint one weight in all tensors.

        Args:
            shares: (endpoints,), the weights; a pairwise method's t is the second endpoint's.
                Values that the search file does not allow go to the nearest allowed one; what is
                neither a weight nor t takes the middle of its range.
        """

        def position(gene: Gene) -> float:
            if gene.parameter == "weight" and gene.model is not None:
                return gene.position(shares[gene.model])
            if gene.parameter == "t" and is_pairwise(self._search.merge.method):
                return gene.position(shares[1])
            return 0.5

        return [position(gene) for gene in self.genes]

    def uniform_sweep(self) -> list[Genome]:
        """What one would try by hand: mixtures with one weight an endpoint in all tensors.

        Each mixture of the endpoints in steps of a quarter (of a half from four endpoints on), the
        endpoints themselves left out; where the method adds task vectors, also all of them in full.
        Mixtures that the search file's ranges make equal are listed once.
        """
        endpoints = len(self._search.endpoints)
        steps = 4 if endpoints < 4 else 2
        shares = [[count / steps for count in counts] for counts in _compositions(steps, endpoints)]
        sweep = [self.mixture(share) for share in shares if max(share) < 1]
        if "lambda" in {p.name for p in merge_methods()[self._search.merge.method].parameters}:
            sweep.append(self.mixture([1.0] * endpoints))
        return [list(genome) for genome in dict.fromkeys(map(tuple, sweep))]


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to write `total` as an ordered sum of `parts` whole numbers from 0 on."""
    for bars in combinations(range(total + parts - 1), parts - 1):
        edges = (-1, *bars, total + parts - 1)
        yield tuple(after - before - 1 for before, after in zip(edges, edges[1:], strict=False))
