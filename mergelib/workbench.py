"""What one process holds in memory for one search, and the one act that costs: an evaluation.

Everything here follows from the search file alone, so that any process can set up its own.
"""

import gc
import time
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

import torch

from mergelib.benchmarks.answering import Answerer, texts_together
from mergelib.benchmarks.items import Benchmark, open_benchmark
from mergelib.benchmarks.scoring import score
from mergelib.checkpoints import Checkpoint, open_checkpoint
from mergelib.compatibility import check_compatible, check_distinct
from mergelib.errors import InputError, MergeError
from mergelib.evaluation import Asked, Evaluation, nothing_done
from mergelib.fingerprints import file_digest
from mergelib.genes import LayerNames
from mergelib.given import Pools, read_given
from mergelib.goals import Goals
from mergelib.merging.fast.merger import FAST_METHODS, FastMerger
from mergelib.merging.mergekit import MergekitMerger
from mergelib.merging.resident import ResidentModel
from mergelib.path_space import PathSpace
from mergelib.recipes import Recipe, canonical_digest
from mergelib.search import Search
from mergelib.sections.evolution import Stop
from mergelib.sections.objectives import BenchmarkChoice
from mergelib.space import Space


class Workbench:
    """Checkpoints, benchmarks, the space of recipes and the resident model of one search.

    Attributes:
        search: the search file.
        checkpoints: each model that the search file names, the base model first.
        benchmarks: the objectives' benchmarks by name, in their order, then the constraints'.
        goals: what is maximised, and which limits hold.
        given: other models' responses, or another run's bank, to calibrate with.
        space: the recipes that can be reached.
        notes: what is no obstacle and yet worth telling, a line each.
    """

    def __init__(self, search: Search, cache: Path | None = None) -> None:
        """Open everything that a search names, and check what can be checked before any work.

        Args:
            search: the search file.
            cache: where fingerprints and merged adapters are kept; None for nowhere.

        Raises:
            InputError: a model or benchmark is missing, or things do not fit together.
        """
        self.search = search
        named = [(f"endpoints.{n}", reference) for n, reference in enumerate(search.endpoints)]
        if search.base is not None:
            named.insert(0, ("base", search.base))
        trust = search.trust_remote_code
        opened = [
            (key, open_checkpoint(reference, key, cache=cache, trust_remote_code=trust))
            for key, reference in named
        ]
        check_distinct(opened)
        self.notes = check_compatible(opened)
        self.checkpoints: dict[str, Checkpoint] = {c.reference: c for _, c in opened}
        self._layer_names = LayerNames.find(opened[0][1].tensor_infos)
        self.space = space_of(search, self._layer_names)
        self._answerers: dict[int, Answerer] = {}
        self.benchmarks: dict[str, Benchmark] = {}
        for number, objective in enumerate(search.objectives):
            self._open_benchmark(objective, f"objectives.{number}")
        self.goals = self._goals()
        self.given = read_given(search.fitness, self._pools())

    def _open_benchmark(self, choice: BenchmarkChoice, key: str) -> str:
        benchmark = open_benchmark(choice, key, self.search.seed)
        if benchmark.name in self.benchmarks:
            raise InputError(f"{key}.benchmark: the task {benchmark.name} is named twice")
        self.benchmarks[benchmark.name] = benchmark
        available = len(benchmark.pool("search"))
        if self.search.fitness.items > available:
            raise InputError(
                f"fitness.items: {self.search.fitness.items}, but {benchmark.name} has {available} "
                "items for the search"
            )
        return benchmark.name

    def _goals(self) -> Goals:
        """Open the constraints' benchmarks; one that is an objective too is not opened again."""
        objectives = self.search.objectives
        by_reference = dict(zip((o.benchmark for o in objectives), self.benchmarks, strict=True))
        constraints = {}
        for number, constraint in enumerate(self.search.constraints):
            key = f"constraints.{number}"
            name = by_reference.get(constraint.benchmark)
            if name is None:
                name = self._open_benchmark(constraint, key)
            else:
                for own in ("metric", "filter", "search_items", "fresh_items"):
                    if getattr(constraint, own) is not None:
                        raise InputError(
                            f"{key}.{own}: {constraint.benchmark} is an objective, which says so; "
                            "leave it out here"
                        )
            constraints[name] = constraint
        weights = [objective.weight or 0.0 for objective in objectives]
        total = sum(weights)
        return Goals(
            names=tuple(self.benchmarks),
            count=len(objectives),
            weights=tuple(weight / total for weight in weights) if total else None,
            constraints=constraints,
        )

    def _pools(self) -> dict[str, Pools]:
        return {
            name: Pools(
                search=[item.item_id for item in benchmark.pool("search")],
                fresh=[item.item_id for item in benchmark.pool("fresh")],
                continuous=benchmark.graded,
            )
            for name, benchmark in self.benchmarks.items()
        }

    @property
    def fingerprints(self) -> dict[str, str]:
        """The content fingerprint of each model."""
        return {name: checkpoint.fingerprint for name, checkpoint in self.checkpoints.items()}

    @property
    def contents(self) -> dict[str, str]:
        """All that decides the search's results beside its file, by name, for `Run.prepare`."""
        items = {
            name: canonical_digest([[item.item_id, item.pool, item.digest] for item in b.items])
            for name, b in self.benchmarks.items()
        }
        files = {str(path): file_digest(path) for path in self.given.files}
        return {**self.fingerprints, **items, **files, "compute": f"{self.device} {self.dtype}"}

    @cached_property
    def device(self) -> str:
        """Where models answer: the first GPU, if there is one, unless the search file says."""
        if self.search.compute.device != "auto":
            return self.search.compute.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def dtype(self) -> str:
        """The type of the arithmetic while answering; it never rounds the exported weights."""
        if self.search.compute.dtype != "auto":
            return self.search.compute.dtype
        return self.search.merge.export_dtype if self.device.startswith("cuda") else "float32"

    @cached_property
    def _resident(self) -> ResidentModel:
        """Where the checkpoints are written, and all merges that have as many layers."""
        return self._load(None)

    @cached_property
    def _resident_of_merges(self) -> ResidentModel:
        layers = self.space.layers
        return self._resident if layers == self._layer_names.count else self._load(layers)

    @property
    def merged_parameters(self) -> int:
        """How many parameters a merge has."""
        return self._resident_of_merges.parameter_count

    def _load(self, layers: int | None) -> ResidentModel:
        first = next(iter(self.checkpoints.values()))
        try:
            resident = ResidentModel(first, self.device, self.dtype, layers)
            _ = resident.tokenizer
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{first.reference}: cannot be opened: {reason}") from error
        threads = self.search.compute.threads_for(resident.parameter_count)
        if threads is not None:
            torch.set_num_threads(threads)
        # What is loaded by now stays: walking through it took longer than a merge.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        return resident

    @cached_property
    def _merger(self) -> MergekitMerger:
        return MergekitMerger(self.checkpoints, self.search.seed)

    @cached_property
    def _fast(self) -> FastMerger | None:
        """The fast backend, where it has the search's method and there are kernels for it."""
        compute = self.search.compute
        kernels = self.device.startswith(("cpu", "cuda"))
        some_fast = not FAST_METHODS.isdisjoint(self.search.merge.methods)
        if compute.merging != "auto" or not kernels or not some_fast:
            return None
        limit = None if compute.cache_gib == "auto" else int(compute.cache_gib * 2**30)
        return FastMerger(self._merger, self._resident_of_merges, limit)

    def _answerer(self, resident: ResidentModel) -> Answerer:
        if id(resident) not in self._answerers:
            self._answerers[id(resident)] = Answerer(resident, self.search.compute.batch)
        return self._answerers[id(resident)]

    def model_digest(self, model: str) -> str:
        """What decides a model's weights: a checkpoint's fingerprint, or a recipe's digest.

        Args:
            model: the reference of one of the checkpoints, or a recipe's YAML.
        """
        if model in self.checkpoints:
            return self.checkpoints[model].fingerprint
        return Recipe.from_yaml(model).digest(self.fingerprints, self.search.seed)

    def evaluation_digest(self, model: str, asked: Asked) -> str:
        """What decides an evaluation's outcome: model, items, and how they are answered."""
        items = {
            name: [item.digest for item in self.benchmarks[name].find(ids)]
            for name, ids in asked.items()
        }
        # All models answer in the first one's architecture, with its tokenizer.
        host = next(iter(self.checkpoints.values())).answering_digest
        merging = self.search.compute.merging
        batch = texts_together(self.search.compute.batch)
        settings = [host, self.device.split(":")[0], self.dtype, batch, merging]
        return canonical_digest([self.model_digest(model), items, settings])

    def write_model(self, model: str) -> ResidentModel:
        """Write a checkpoint's or a recipe's weights into the resident model.

        Raises:
            MergeError: the recipe cannot be merged, or gives weights that are not finite.
        """
        if model in self.checkpoints:
            self._resident.write(self._merger.merge(Recipe.of_one(model)))
            return self._resident
        if self._fast is not None:
            self._fast.write(Recipe.from_yaml(model))
        else:
            self._resident_of_merges.write(self._merger.merge(Recipe.from_yaml(model)))
        return self._resident_of_merges

    def rehearse(self) -> None:
        """Do everything once that a search does many times, so that it fails here or not at all.

        Loads the model, merges a recipe by each method, holds it to mergekit's own arithmetic, lets
        an endpoint answer an item of each benchmark, and scores it.

        Raises:
            InputError: something of it cannot be done.
        """
        asked = {name: [b.pool("search")[0].item_id] for name, b in self.benchmarks.items()}
        try:
            self.write_model(self.search.endpoints[0])
            for genome in self.space.examples():
                recipe = self.space.decode(genome)
                self.write_model(recipe.to_yaml())
                if self._fast is not None and recipe.method in FAST_METHODS:
                    self._fast.check(recipe)
            self.evaluate(self.search.endpoints[0], asked)
            if self._resident_of_merges is not self._resident:
                self.evaluate(recipe.to_yaml(), asked)
        except MergeError as error:
            raise InputError(f"merge: this search's models cannot be merged: {error}") from error
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"compute.device: {self.device} cannot do it: {reason}") from error

    def release(self) -> None:
        """Free the memory of models; they are loaded again when they are next needed."""
        for name in ("_resident", "_resident_of_merges", "_merger", "_fast"):
            self.__dict__.pop(name, None)
        self._answerers.clear()
        gc.unfreeze()
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def evaluate(self, model: str, asked: Asked) -> Evaluation:
        """Merge a model in memory and let it answer items.

        Args:
            model: the reference of one of the checkpoints, or a recipe's YAML.
            asked: the items of each benchmark.

        Returns:
            The scored responses and their cost; a recipe that cannot be merged is "failed", with
            the reason and no responses.
        """
        evaluation = nothing_done("ok", None)
        start = time.perf_counter()
        try:
            resident = self.write_model(model)
        except MergeError as error:
            return nothing_done("failed", str(error))
        merged = time.perf_counter()
        evaluation["seconds_merge"] = merged - start
        items = {name: self.benchmarks[name].find(ids) for name, ids in asked.items()}
        raw, spent = self._answerer(resident).answer(
            [item for part in items.values() for item in part]
        )
        answers = iter(raw)
        for name, part in items.items():
            responses = score(self.benchmarks[name], part, [next(answers) for _ in part])
            evaluation["responses"][name] = [list(response) for response in responses]
        evaluation["items"] = len(raw)
        evaluation["tokens"] = spent.tokens
        evaluation["flops"] = spent.flops
        evaluation["seconds_answer"] = time.perf_counter() - merged
        return evaluation


def space_of(search: Search, layers: LayerNames) -> Space | PathSpace:
    """The space of recipes that a search file describes."""
    path = search.merge.path
    return Space(search, layers) if path is None else PathSpace(search, path, layers)


@lru_cache(maxsize=1)
def _workbench(search_json: str, cache: Path | None) -> Workbench:
    return Workbench(Search.model_validate_json(search_json), cache)


def open_workbench(search: Search, cache: Path | None = None) -> Workbench:
    """The process's workbench for a search; the last one is kept, so that models stay in memory.

    Args:
        search: the search.
        cache: where fingerprints and merged adapters are kept; None for nowhere.
    """
    relevant = search.model_copy(
        update={
            "evolution": search.evolution.model_copy(update={"generations": 1, "stop": Stop()}),
            "finalists": 1,
            "deciding_items": 1,
        }
    )
    return _workbench(relevant.model_dump_json(), cache)


def total_items(benchmarks: Iterable[Benchmark]) -> int:
    """How many items a full evaluation of one model would ask."""
    return sum(len(benchmark.items) for benchmark in benchmarks)
