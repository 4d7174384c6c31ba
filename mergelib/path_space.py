"""The space of data flow: which layer of which endpoint comes next (Akiba et al. 2024, 3.2).

A merged model has a fixed number of places for layers. At each place a gene chooses the endpoint,
another how many layers before or after the place's own one it takes, and one, where the search file
gives a range, what the layer's contribution to the stream is multiplied by. Mergekit's passthrough
says the same in its YAML, a slice of one layer at each place.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

from mergelib.errors import InputError
from mergelib.genes import Gene, Genome, LayerNames
from mergelib.recipes import Recipe
from mergelib.search import Search
from mergelib.sections.merge import Path, Range

_OUTPUTS = ("o_proj", "down_proj")
"""What writes into the stream: attention's and the MLP's last matrix."""


class PathSpace:
    """All paths through the endpoints' layers that a search file allows."""

    def __init__(self, search: Search, path: Path, layers: LayerNames) -> None:
        """Lay out the genes.

        Args:
            search: the search file.
            path: its `merge.path`.
            layers: the layers of the models to merge.

        Raises:
            InputError: layers are to be scaled, and have not the matrices to scale.
        """
        self._search, self._path, self._layers = search, path, layers
        self._length = path.length or layers.count
        scaled = path.scale != 1.0
        missing = [o for o in _OUTPUTS if not any(f"{o}.weight" in n for n in layers.names)]
        if scaled and missing:
            raise InputError(
                f"merge.path.scale: scales o_proj and down_proj, and no tensor's name holds "
                f"{missing[0]!r}; leave it out"
            )
        self.genes: tuple[Gene, ...] = tuple(
            gene for place in range(self._length) for gene in self._genes_at(place)
        )

    @property
    def dimension(self) -> int:
        """The length of a genome."""
        return len(self.genes)

    @property
    def layers(self) -> int:
        """How many layers a merged model has."""
        return self._length

    def _genes_at(self, place: int) -> list[Gene]:
        reach, scale = self._path.reach, self._path.scale
        last = len(self._search.endpoints) - 1
        genes = [Gene("model", None, None, place, 0, last, 1.0, whole=True)]
        if reach:
            genes.append(Gene("layer", None, None, place, -reach, reach, 1.0, whole=True))
        if isinstance(scale, Range):
            genes.append(Gene("scale", None, None, place, scale.low, scale.high, scale.step))
        return genes

    def _own(self, place: int) -> int:
        """The layer that a place has in a model that is stretched evenly over all places."""
        return place * self._layers.count // self._length

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
            (gene.group, gene.parameter): gene.value(position)
            for gene, position in zip(self.genes, genome, strict=True)
        }
        slices = []
        for place in range(self._length):
            layer = self._own(place) + int(values.get((place, "layer"), 0))
            layer = min(self._layers.count - 1, max(0, layer))
            source: dict[str, Any] = {
                "model": self._search.endpoints[int(values[place, "model"])],
                "layer_range": [layer, layer + 1],
            }
            scale = values.get((place, "scale"), self._path.scale)
            if scale != 1.0:
                scales = [*({"filter": o, "value": scale} for o in _OUTPUTS), {"value": 1.0}]
                source["parameters"] = {"scale": scales}
            slices.append({"sources": [source]})
        return Recipe(
            {
                "merge_method": "passthrough",
                "slices": slices,
                "dtype": "float32",
                "out_dtype": self._search.merge.export_dtype,
            }
        )

    def encode(self, recipe: Recipe) -> Genome:
        """The genome of a recipe that `decode` made, up to the rounding of its values."""
        genome = []
        for gene in self.genes:
            (source,) = recipe.config["slices"][gene.group]["sources"]
            if gene.parameter == "model":
                value = float(self._search.endpoints.index(source["model"]))
            elif gene.parameter == "layer":
                value = source["layer_range"][0] - self._own(gene.group)
            else:
                scales = source.get("parameters", {}).get("scale", [{"value": 1.0}])
                value = scales[0]["value"]
            genome.append(gene.position(value))
        return genome

    def _path_of(self, models: Sequence[int]) -> Genome:
        """The genome whose places have these endpoints' own layers, as they are."""
        plain = {"layer": 0.0, "scale": 1.0}
        return [gene.position(plain.get(gene.parameter, models[gene.group])) for gene in self.genes]

    def corners(self) -> list[Genome]:
        """The genome of each endpoint alone."""
        return [self._path_of([m] * self._length) for m in range(len(self._search.endpoints))]

    def first(self) -> list[Genome]:
        """Where a search may begin: the endpoints."""
        return self.corners()

    def examples(self) -> list[Genome]:
        """A genome with a change of model and, where they are searched, of layers and scales."""
        return [[(n + 1) / (self.dimension + 1.5) for n in range(self.dimension)]]

    def uniform_sweep(self) -> list[Genome]:
        """What one would try by hand: for each two endpoints, the one's layers before the other's.

        With the change after a quarter, a half and three quarters of the layers, and by turns.
        """
        sweep = []
        for one, other in permutations(range(len(self._search.endpoints)), 2):
            for quarters in (1, 2, 3):
                first = self._length * quarters // 4
                if 0 < first < self._length:
                    sweep.append(self._path_of([one] * first + [other] * (self._length - first)))
            if self._length > 1:
                sweep.append(self._path_of([(one, other)[n % 2] for n in range(self._length)]))
        # One layer leaves no merge by hand but an endpoint.
        return [list(genome) for genome in dict.fromkeys(map(tuple, sweep or self.corners()))]
