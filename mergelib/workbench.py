"""What one process holds in memory for one search, and the one act that costs: an evaluation.

Everything here follows from the search file alone, so that any process can set up its own.
"""

import gc
import time
import traceback
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

import torch

from mergelib.benchmarks.answering import Answerer, texts_together
from mergelib.benchmarks.chat import chat_template_of
from mergelib.benchmarks.engines import device_of, dtype_of, open_answerer, why_not
from mergelib.benchmarks.items import Benchmark
from mergelib.benchmarks.of_search import open_benchmarks
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
from mergelib.rehearsal import rehearsed
from mergelib.search import Search
from mergelib.sections.evolution import Stop
from mergelib.sections.objectives import Constraint
from mergelib.space import Space
from mergelib.time_limit import TimeLimit


class Workbench:
    """Checkpoints, benchmarks, the space of recipes and the resident model of one search.

    Attributes:
        search: the search file.
        checkpoints: each model that the search file names, the base model first.
        benchmarks: the objectives' benchmarks by name, in their order, then the constraints'.
        goals: what is maximised, and which limits hold.
        given: other models' responses, or another run's bank, to calibrate with.
        space: the recipes that can be reached.
        test_sets: the benchmarks that are searched on public test data, by name: which.
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
        chosen = open_benchmarks(
            search, lambda key: chat_template_of(self.checkpoints.values(), key)
        )
        self.benchmarks: dict[str, Benchmark] = chosen.benchmarks
        self.test_sets: dict[str, str] = chosen.test_sets
        self.notes += chosen.notes
        self.goals = self._goals(chosen.limits)
        self.given = read_given(search.fitness, self._pools())

    def _goals(self, limits: Mapping[str, Constraint]) -> Goals:
        weights = [objective.weight or 0.0 for objective in self.search.objectives]
        total = sum(weights)
        return Goals(
            names=tuple(self.benchmarks),
            count=len(weights),
            weights=tuple(weight / total for weight in weights) if total else None,
            constraints=limits,
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
        """Where merges are written."""
        return device_of(self.search.compute)

    @cached_property
    def dtype(self) -> str:
        """The type of the arithmetic while answering; it never rounds the exported weights."""
        return dtype_of(self.search)

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
            self._answerers[id(resident)] = open_answerer(resident, self.search)
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
        compute = self.search.compute
        batch = texts_together(compute.batch)
        settings = [host, self.device.split(":")[0], self.dtype, batch, compute.merging]
        settings += [compute.engine, compute.quantization]
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

    def rehearse(self) -> list[str]:
        """Do everything once that a search does many times, so that it fails here or not at all.

        Loads the model, merges a recipe by each method, holds it to mergekit's own arithmetic, lets
        an endpoint answer an item of each benchmark, and scores it.

        Returns:
            What is no obstacle and yet worth telling, a line each: items that are longer than the
            context, first items that could not be scored.

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
            first = self.evaluate(self.search.endpoints[0], asked)
            notes = rehearsed(self.benchmarks, self._answerer(self._resident), first)
            if self._resident_of_merges is not self._resident:
                self.evaluate(recipe.to_yaml(), asked)
        except MergeError as error:
            raise InputError(f"merge: this search's models cannot be merged: {error}") from error
        except (RuntimeError, AssertionError) as error:
            raise InputError(why_not(self.search, error)) from error
        return notes

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

        Raises:
            TooSlow: a recipe took longer than `compute.seconds_per_candidate` allows.
        """
        evaluation = nothing_done("ok", None)
        start = time.perf_counter()
        limit = None if model in self.checkpoints else TimeLimit.of_merge(self.search, asked)
        try:
            resident = self.write_model(model)
        except MergeError as error:
            return {**nothing_done("failed", str(error)), "traceback": traceback.format_exc()}
        merged = time.perf_counter()
        evaluation["seconds_merge"] = merged - start
        items = {name: self.benchmarks[name].find(ids) for name, ids in asked.items()}
        # What several benchmarks ask alike, as two metrics of one task do, is answered once.
        different = {item.asked: item for part in items.values() for item in part}
        raw, spent = self._answerer(resident).answer(list(different.values()), limit)
        answers = dict(zip(different, raw, strict=True))
        for name, part in items.items():
            responses = score(self.benchmarks[name], part, [answers[item.asked] for item in part])
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
    """How many items a full evaluation of one model would ask; those asked alike count once."""
    return len({item.asked for benchmark in benchmarks for item in benchmark.items})
