"""An lm-eval task's items: rendered once as lm-eval renders them, split into two pools.

The search pool is what a search may look at; the fresh pool gives the final scores and is never
shown to the search. A task with a validation and a test split gives one for each; otherwise the
documents that lm-eval evaluates are shared out by the search's seed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import yaml
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from mergelib.errors import InputError, unknown
from mergelib.recipes import canonical_digest
from mergelib.sections.objectives import BenchmarkChoice

Pool = Literal["search", "fresh"]

_FEWSHOT_SEED = 1234
"""lm-eval's default, so that few-shot examples are those of a plain `lm_eval` run."""

_RIGHT_OR_WRONG = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"}
"""lm-eval's metrics that are 0 or 1 for every item."""

_LOAD_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    yaml.YAMLError,
)
"""What a task that is not there or not whole makes lm-eval, datasets or its own code raise."""


@dataclass(frozen=True)
class Item:
    """One document of a benchmark, ready to be asked.

    Attributes:
        item_id: "<lm-eval split>/<position in it>".
        pool: which of the two pools it belongs to.
        doc: the document as lm-eval's task knows it.
        question: the document's own text, without few-shot examples.
        instances: lm-eval's requests for it, in order.
        target: the right answer, as text.
        digest: SHA-256 of what is asked and what counts as right.
    """

    item_id: str
    pool: Pool
    doc: dict[str, Any]
    question: str
    instances: tuple[Instance, ...]
    target: str
    digest: str

    @property
    def prompt(self) -> str:
        """The text before the answer."""
        return str(self.instances[0].args[0])

    @property
    def choices(self) -> list[str] | None:
        """The answers to choose from; None where the model writes its own."""
        if self.instances[0].request_type != "loglikelihood":
            return None
        return [str(instance.args[1]) for instance in self.instances]


@dataclass(frozen=True)
class Benchmark:
    """An lm-eval task with the metric and filter that a search goes by.

    Attributes:
        name: the task's name.
        task: lm-eval's task object; it scores.
        metric: the metric's name.
        filter: the name of the filter that answers pass before they are scored.
        higher_is_better: the metric's direction.
        items: both pools, the search pool first, each in the order of the task's documents.
    """

    name: str
    task: Any
    metric: str
    filter: str
    higher_is_better: bool
    items: tuple[Item, ...]

    @property
    def graded(self) -> bool:
        """Whether an item's score may lie between 0 and 1."""
        return self.metric not in _RIGHT_OR_WRONG

    def pool(self, pool: Pool) -> list[Item]:
        """The items of one pool."""
        return [item for item in self.items if item.pool == pool]

    def find(self, item_ids: Iterable[str]) -> list[Item]:
        """Items by their ids, in the order asked for.

        Raises:
            KeyError: an id that the benchmark does not have.
        """
        by_id = {item.item_id: item for item in self.items}
        return [by_id[item_id] for item_id in item_ids]


def open_benchmark(objective: BenchmarkChoice, key: str, seed: int) -> Benchmark:
    """Load an lm-eval task and render its items.

    Args:
        objective: names the task (a YAML file or a name), metric and filter, and caps the pools.
        key: the search file's key, for error messages.
        seed: decides how documents are shared out and which ones a cap keeps.

    Raises:
        InputError: no such task, metric or filter, or too few documents.
    """
    task = _load_task(objective.benchmark, f"{key}.benchmark")
    directions: dict[str, bool] = task.higher_is_better()
    metric = objective.metric or next(iter(directions))
    if metric not in directions:
        raise InputError(f"{key}.metric: " + unknown("a metric of the task", metric, directions))
    filters = [pipeline.name for pipeline in task._filters]
    chosen_filter = objective.filter or filters[0]
    if chosen_filter not in filters:
        raise InputError(
            f"{key}.filter: " + unknown("a filter of the task", chosen_filter, filters)
        )
    items = []
    for pool, split, ids in _share_out(task, objective, key, seed):
        items += _render(task, pool, split, ids, [metric, chosen_filter, _scoring(task)])
    return Benchmark(
        name=str(task.task_name),
        task=task,
        metric=metric,
        filter=chosen_filter,
        higher_is_better=bool(directions[metric]),
        items=tuple(_unseen(items, bool(task.config.num_fewshot), f"{key}.benchmark")),
    )


def _scoring(task: Any) -> dict[str, Any]:
    """The part of a task's configuration that decides how answers are scored, as plain values."""
    config = task.config.to_dict(keep_callable=False)
    names = ("filter_list", "metric_list", "process_results", "output_type", "repeats")
    scoring = {name: config.get(name) for name in names}
    plain: dict[str, Any] = json.loads(json.dumps(scoring, default=str))
    return plain


def _unseen(items: list[Item], shots: bool, key: str) -> list[Item]:
    """Leave out fresh items that the search would see: as items of its own, or as examples.

    Args:
        items: of both pools.
        shots: whether prompts hold few-shot examples.
        key: the search file's key, for error messages.

    Raises:
        InputError: fewer than 2 fresh items are left.
    """
    searched = [item for item in items if item.pool == "search"]
    questions = {item.question for item in searched}
    examples = "\x00".join(i.prompt for i in searched if i.prompt != i.question) if shots else ""
    kept = [
        item
        for item in items
        if item.pool == "search"
        or (item.question not in questions and item.question not in examples)
    ]
    if sum(item.pool == "fresh" for item in kept) < 2:
        raise InputError(
            f"{key}: the search would see the fresh items, as doubles or as few-shot examples; "
            "give the task a fewshot_split of its own"
        )
    return kept


def _load_task(reference: str, key: str) -> Any:
    """The lm-eval task of a YAML file, or of a name among lm-eval's own tasks."""
    is_file = Path(reference).is_file()
    try:
        # Reading the index of lm-eval's own tasks takes seconds, so a file goes without it.
        manager = TaskManager(include_defaults=not is_file)
        if not is_file and reference not in manager.task_index:
            looks_local = reference.endswith((".yaml", ".yml")) or "/" in reference
            raise InputError(
                f"{key}: {reference!r}: no such file"
                if looks_local
                else f"{key}: {reference!r} is neither a file nor a task of lm-eval; "
                "`lm_eval ls tasks` lists them"
            )
        tasks = manager.load([reference])["tasks"]
    except _LOAD_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{key}: {reference}: lm-eval cannot load this task: {reason}") from error
    if len(tasks) != 1:
        raise InputError(
            f"{key}: {reference} is a group of {len(tasks)} tasks; name one: {', '.join(tasks)}"
        )
    return next(iter(tasks.values()))


def _share_out(
    task: Any, objective: BenchmarkChoice, key: str, seed: int
) -> list[tuple[Pool, str, list[int]]]:
    """Which documents of which lm-eval split go into each pool."""
    random = np.random.default_rng([seed, 0x17E45])  # a stream of its own
    config = task.config
    two_splits = task.has_validation_docs() and task.has_test_docs()
    if two_splits and config.validation_split != config.test_split:
        search_split, fresh_split = config.validation_split, config.test_split
        search = list(range(len(task.validation_docs())))
        fresh = list(range(len(task.test_docs())))
    else:
        search_split = fresh_split = config.test_split or config.validation_split
        order = random.permutation(len(task.eval_docs)).tolist()
        search, fresh = order[: len(order) // 2], order[len(order) // 2 :]
    pools: list[tuple[Pool, str, list[int]]] = []
    for pool, split, ids, most in (
        ("search", search_split, search, objective.search_items),
        ("fresh", fresh_split, fresh, objective.fresh_items),
    ):
        if most is not None and most > len(ids):
            raise InputError(
                f"{key}.{pool}_items: {most}, but {objective.benchmark} has {len(ids)} for this"
            )
        kept = random.permutation(ids)[:most].tolist() if most is not None else ids
        if len(kept) < 2:
            raise InputError(
                f"{key}.benchmark: {objective.benchmark} leaves {len(kept)} items for the {pool} "
                "pool; at least 2 needed"
            )
        pools.append((pool, split, sorted(kept)))  # type: ignore[arg-type]
    return pools


def _render(
    task: Any, pool: Pool, split: str, ids: Sequence[int], scored_by: list[Any]
) -> list[Item]:
    """Build lm-eval's requests for documents, as its own `build_all_requests` does."""
    docs = task.test_docs() if split == task.config.test_split else task.validation_docs()
    shots = task.config.num_fewshot or 0
    task.set_fewshot_seed(_FEWSHOT_SEED)
    wanted = set(ids)
    items = []
    for number, doc in enumerate(docs):
        # Few-shot examples are drawn one document after the other: none may be passed over.
        if not shots and number not in wanted:
            continue
        context = task.fewshot_context(doc, num_fewshot=shots, gen_prefix=task.doc_to_prefix(doc))
        if number not in wanted:
            continue
        built = task.construct_requests(
            doc=doc, ctx=context, metadata=(task.task_name, number, task.config.repeats)
        )
        instances = tuple(built) if isinstance(built, list) else (built,)
        target = _target(task, doc)
        asked = [[i.request_type, list(i.args), i.repeats] for i in instances]
        digest = canonical_digest([asked, target, scored_by, str(task.VERSION)])
        # A task that puts its choices before the answer gives their number here, not a text.
        text = task.doc_to_text(doc)
        question = text if isinstance(text, str) else str(instances[0].args[0])
        items.append(
            Item(f"{split}/{number}", pool, dict(doc), question, instances, target, digest)
        )
    return items


def _target(task: Any, doc: dict[str, Any]) -> str:
    target = task.doc_to_target(doc)
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        return str(task.doc_to_choice(doc)[target])
    return str(target)


ITEM_SCHEMA = pa.schema(
    {
        "benchmark": pa.string(),
        "item_id": pa.string(),
        "prompt": pa.string(),
        "choices": pa.list_(pa.string()),
        "target": pa.string(),
        "split": pa.string(),
        "digest": pa.string(),
    }
)


def items_table(benchmarks: Iterable[Benchmark]) -> pa.Table:
    """All items of all benchmarks, a row each (`ITEM_SCHEMA`)."""
    rows = [
        {
            "benchmark": benchmark.name,
            "item_id": item.item_id,
            "prompt": item.prompt,
            "choices": item.choices,
            "target": item.target,
            "split": item.pool,
            "digest": item.digest,
        }
        for benchmark in benchmarks
        for item in benchmark.items
    ]
    return pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)
