"""The space of recipes: a genome in [0, 1]^d decodes to a recipe, and back.

A searched parameter has a gene for each model that it belongs to, each set of tensors and each
group of layers. Sets are the components (tensors whose name holds "self_attn", say) and the rest:
embeddings, norms and the head. Mergekit's filters and gradients say the same in its YAML.

Of several merge methods a gene chooses one. Genes of parameters that the chosen method does not
read leave no trace in the recipe, so genomes that differ only in them are one recipe.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from mergelib.errors import InputError
from mergelib.genes import Gene, Genome, LayerNames
from mergelib.merging.methods import (
    is_pairwise,
    is_per_model,
    merge_methods,
    parameter_spec,
    takes_base,
    value_type,
)
from mergelib.recipes import Recipe
from mergelib.search import Search
from mergelib.sections.merge import Range

_METHOD = "merge_method"
"""The gene that chooses between merge methods, where there are several."""


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
        per_group = merge.layers_per_group
        self._groups = merge.layer_groups if per_group is None else -(-layers.count // per_group)
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
        groups = self._groups
        if self._search.merge.components:
            components = self._search.merge.components
            return [*((c, groups if self._in_layers(c) else 1) for c in components), (None, 1)]
        return [(self._layers.prefix, groups), (None, 1)] if groups > 1 else [(None, 1)]

    def _in_layers(self, component: str) -> bool:
        """Whether a layer has tensors of a component; the embeddings, say, are in none."""
        prefix = self._layers.prefix
        return any(component in n for n in self._layers.names if n.startswith(prefix))

    def _lay_out(self) -> Iterator[Gene]:
        merge = self._search.merge
        if len(merge.methods) > 1:
            yield Gene(_METHOD, None, None, 0, 0.0, len(merge.methods) - 1, 1.0, whole=True)
        for name, value in merge.parameters.items():
            if not isinstance(value, Range):
                continue
            specs = [parameter_spec(m, name) for m in merge.methods if name in self._read_by(m)]
            whole = all(value_type(spec) is int for spec in specs)
            step = 1.0 if whole and value.step is None else value.step
            for per_model in dict.fromkeys(map(is_per_model, specs)):
                for owner in range(len(self._search.endpoints)) if per_model else (None,):
                    for tensors, groups in self._tensor_sets():
                        for group in range(groups):
                            ends = value.low, value.high
                            yield Gene(name, owner, tensors, group, *ends, step, whole)

    def _read_by(self, method: str) -> Mapping[str, Any]:
        return self._search.merge.parameters_of(method)

    def _active(self, method: str) -> list[Gene]:
        """The genes that say something in a recipe of a method."""
        own = {(name, is_per_model(parameter_spec(method, name))) for name in self._read_by(method)}
        return [gene for gene in self.genes if (gene.parameter, gene.model is not None) in own]

    def _method(self, genome: Sequence[float]) -> str:
        methods = self._search.merge.methods
        if self.genes and self.genes[0].parameter == _METHOD:
            return methods[int(self.genes[0].value(genome[0]))]
        return methods[0]

    def decode(self, genome: Sequence[float]) -> Recipe:
        """The recipe that a genome stands for.

        Args:
            genome: (d,), each in [0, 1].

        Raises:
            ValueError: a wrong length, or a position outside [0, 1].
        """
        if len(genome) != self.dimension or not all(0 <= position <= 1 for position in genome):
            raise ValueError(f"a genome has {self.dimension} positions in [0, 1], got {genome}")
        search, method = self._search, self._method(genome)
        at = dict(zip(self.genes, genome, strict=True))
        values = {gene: gene.value(at[gene]) for gene in self._active(method)}
        shared = {
            name: value
            for name, value in self._read_by(method).items()
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

    def _settings(self, values: Mapping[Gene, float], owner: int | None) -> dict[str, Any]:
        """One model's parameters as mergekit's filters and gradients."""
        settings: dict[str, list[dict[str, Any]]] = {}
        for name in dict.fromkeys(gene.parameter for gene in values if gene.model == owner):
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
        return [groups[self._group(layer)] for layer in range(self._layers.count)]

    def _group(self, layer: int) -> int:
        per_group = self._search.merge.layers_per_group
        if per_group is not None:
            return layer // per_group
        return layer * self._groups // self._layers.count

    def encode(self, recipe: Recipe) -> Genome:
        """The genome of a recipe that `decode` made, up to the rounding of its values.

        Genes that say nothing in the recipe are in the middle of their range.
        """
        active = set(self._active(recipe.method))
        return [
            gene.position(self._search.merge.methods.index(recipe.method))
            if gene.parameter == _METHOD
            else gene.position(self._read(recipe, gene))
            if gene in active
            else 0.5
            for gene in self.genes
        ]

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
        layers = range(self._layers.count)
        return float(setting[next(n for n in layers if self._group(n) == gene.group)])

    def mixture(self, shares: Sequence[float], method: str | None = None) -> Genome:
        """The genome that gives each endpoint one weight in all tensors.

        Args:
            shares: (endpoints,), the weights; a pairwise method's t is the second endpoint's.
                Values that the search file does not allow go to the nearest allowed one; what is
                neither a weight nor t takes the middle of its range.
            method: one of the search's merge methods; the first by default.
        """
        methods = self._search.merge.methods
        merged_by = methods[0] if method is None else method

        def position(gene: Gene) -> float:
            if gene.parameter == _METHOD:
                return gene.position(methods.index(merged_by))
            if gene.parameter == "weight" and gene.model is not None:
                return gene.position(shares[gene.model])
            if gene.parameter == "t" and is_pairwise(merged_by):
                return gene.position(shares[1])
            return 0.5

        return [position(gene) for gene in self.genes]

    def corners(self) -> list[Genome]:
        """The genome nearest to each endpoint alone."""
        count = len(self._search.endpoints)
        return [self.mixture([float(n == m) for n in range(count)]) for m in range(count)]

    def first(self) -> list[Genome]:
        """Where a search may begin: the even mixture by each method, and the endpoints."""
        count = len(self._search.endpoints)
        even = [self.mixture([1 / count] * count, m) for m in self._search.merge.methods]
        return [*even, *self.corners()]

    @property
    def layers(self) -> int:
        """How many layers a merged model has."""
        return self._layers.count

    def examples(self) -> list[Genome]:
        """A genome for each merge method, off the middle, where weights might cancel out."""
        plain = [(n + 1) / (self.dimension + 1.5) for n in range(self.dimension)]
        count = len(self._search.merge.methods)
        if count == 1:
            return [plain]
        return [[self.genes[0].position(n), *plain[1:]] for n in range(count)]

    def uniform_sweep(self) -> list[Genome]:
        """What one would try by hand: mixtures with one weight an endpoint in all tensors.

        By each method, each mixture of the endpoints in steps of a quarter (of a half from four
        endpoints on), the endpoints themselves left out; where the method adds task vectors, also
        all of them in full. Mixtures that the search file's ranges make equal are listed once.
        """
        endpoints = len(self._search.endpoints)
        steps = 4 if endpoints < 4 else 2
        shares = [[count / steps for count in counts] for counts in _compositions(steps, endpoints)]
        sweep = []
        for method in self._search.merge.methods:
            sweep += [self.mixture(share, method) for share in shares if max(share) < 1]
            if "lambda" in {spec.name for spec in merge_methods()[method].parameters}:
                sweep.append(self.mixture([1.0] * endpoints, method))
        return [list(genome) for genome in dict.fromkeys(map(tuple, sweep))]


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to write `total` as an ordered sum of `parts` whole numbers from 0 on."""
    for bars in combinations(range(total + parts - 1), parts - 1):
        edges = (-1, *bars, total + parts - 1)
        yield tuple(after - before - 1 for before, after in zip(edges, edges[1:], strict=False))
