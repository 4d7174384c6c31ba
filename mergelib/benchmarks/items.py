"""A benchmark's items: rendered once as lm-eval renders them, split into two pools.

The search pool is what a search may look at; the fresh pool gives the final scores and is never
shown to the search. A task with a validation and a test split gives one for each; otherwise the
documents that lm-eval evaluates are shared out by the search's seed.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
from lm_eval.api.instance import Instance

from mergelib.benchmarks.chat import ChatTemplate
from mergelib.benchmarks.language import LanguageCheck, language_check
from mergelib.benchmarks.measures import check_answers_are_texts, filter_of, metric_of
from mergelib.benchmarks.plain_files import plain_task
from mergelib.benchmarks.pools import Pool, Share, share_out, unseen
from mergelib.benchmarks.scorers import Scorer, open_scorer
from mergelib.benchmarks.sources import FAULTS, Source, in_one_line, lm_eval_task
from mergelib.errors import InputError
from mergelib.recipes import canonical_digest
from mergelib.sections.objectives import BenchmarkChoice
from mergelib.sections.plain_file import PlainFile

_FEWSHOT_SEED = 1234
"""lm-eval's default, so that few-shot examples are those of a plain `lm_eval` run."""

_RIGHT_OR_WRONG = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"}
"""lm-eval's metrics that are 0 or 1 for every item."""


@dataclass(frozen=True)
class Item:
    """One document of a benchmark, ready to be asked.

    Attributes:
        item_id: "<lm-eval split>/<position in it>", of a group after its task's name.
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
    def split(self) -> str:
        """The lm-eval split that it comes from."""
        return self.item_id.split("/")[-2]

    @cached_property
    def asked(self) -> str:
        """SHA-256 of what is asked, however it is scored."""
        return canonical_digest(_asked(self.instances))

    @property
    def choices(self) -> list[str] | None:
        """The answers to choose from; None where the model writes its own."""
        if self.instances[0].request_type != "loglikelihood":
            return None
        return [str(instance.args[1]) for instance in self.instances]


@dataclass(frozen=True)
class Benchmark:
    """A task, or a group of them, with the metric and filter that a search goes by.

    Attributes:
        name: what tables and reports call it.
        task: lm-eval's task object; it scores. Of a group the first one.
        metric: the metric's name; the scorer's, where there is one.
        filter: the name of the filter that answers pass before they are scored.
        higher_is_better: the metric's direction.
        items: both pools, the search pool first, each in the order of the task's documents.
        members: a group's tasks by name; empty without a group.
        scorer: scores in place of the metric.
        language: what answers must be written in.
        notes: what is no obstacle and yet worth telling, a line each.
    """

    name: str
    task: Any
    metric: str
    filter: str
    higher_is_better: bool
    items: tuple[Item, ...]
    members: Mapping[str, Any] = field(default_factory=dict)
    scorer: Scorer | None = None
    language: LanguageCheck | None = None
    notes: tuple[str, ...] = ()

    def task_of(self, item: Item) -> Any:
        """The task that scores an item."""
        return self.members[str(item.instances[0].task_name)] if self.members else self.task

    @property
    def graded(self) -> bool:
        """Whether an item's score may lie between 0 and 1."""
        return self.scorer is not None or self.metric not in _RIGHT_OR_WRONG

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


def open_benchmark(
    objective: BenchmarkChoice,
    key: str,
    seed: int,
    chat: Callable[[str], ChatTemplate] | None = None,
) -> Benchmark:
    """Load a task, a group or a plain file, and render its items.

    Args:
        objective: names it, and says how it is asked and scored, and what caps the pools.
        key: the search file's key, for error messages.
        seed: decides how documents are shared out and which ones a cap keeps.
        chat: gives the chat template, if it is asked for; takes the search file's key.

    Raises:
        InputError: no such task, file, metric, filter, scorer or language, or too few documents.
    """
    source = _source(objective, key, seed)
    tasks = list(source.tasks.values())
    metric, higher_is_better = metric_of(tasks, objective, key)
    chosen_filter = filter_of(tasks, objective, key)
    scorer = objective.scorer and open_scorer(objective.scorer, f"{key}.scorer")
    language = objective.language and language_check(
        objective.language, objective.language_threshold, f"{key}.language"
    )
    check_answers_are_texts(tasks, objective, key)
    scored_by: list[Any] = [metric, chosen_filter]
    if scorer:
        metric, scored_by = scorer.name, [scorer.digest, chosen_filter]
    if language:
        scored_by.append(language.decided_by)
    template = chat(f"{key}.chat_template") if chat and objective.chat_template else None
    items = []
    for share in share_out(source.tasks, source.shown, objective, key, seed):
        try:
            rendering = _Rendering(objective, template, scored_by, len(tasks) > 1)
            items += rendering.render(source.tasks[share.task], share)
        except FAULTS as error:
            raise InputError(
                f"{key}.benchmark: {objective.reference}: lm-eval cannot render this task: "
                f"{in_one_line(error)}"
            ) from error
    # The examples of a plain file are known, and its items have been kept from them.
    from_file = isinstance(objective.benchmark, PlainFile)
    shots = not from_file and any(task.config.num_fewshot for task in tasks)
    return Benchmark(
        name=objective.name or source.name,
        task=tasks[0],
        metric=metric,
        filter=chosen_filter,
        higher_is_better=higher_is_better or scorer is not None,
        items=tuple(unseen(items, shots, f"{key}.benchmark")),
        members=source.tasks if len(tasks) > 1 else {},
        scorer=scorer or None,
        language=language or None,
        notes=(*source.notes, *_empty_choices(items, f"{key}.benchmark")),
    )


def _source(objective: BenchmarkChoice, key: str, seed: int) -> Source:
    if isinstance(objective.benchmark, PlainFile):
        return plain_task(objective.benchmark, objective.name, f"{key}.benchmark", seed)
    return lm_eval_task(objective.benchmark, f"{key}.benchmark")


def _empty_choices(items: list[Item], key: str) -> list[str]:
    """A line on the items that cannot be answered since one of their choices is empty."""
    names = [i.item_id for i in items if not all(choice.strip() for choice in i.choices or ())]
    if not names:
        return []
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    count = "1 item has" if len(names) == 1 else f"{len(names)} items have"
    verb = "is" if len(names) == 1 else "are"
    return [f"{key}: {count} an empty choice and {verb} not scored: {listed}"]


def _scoring(task: Any) -> dict[str, Any]:
    """The part of a task's configuration that decides how answers are scored, as plain values."""
    config = task.config.to_dict(keep_callable=False)
    names = ("filter_list", "metric_list", "process_results", "output_type", "repeats")
    scoring = {name: config.get(name) for name in names}
    plain: dict[str, Any] = json.loads(json.dumps(scoring, default=str))
    return plain


def _asked(instances: Iterable[Instance]) -> list[list[Any]]:
    return [[i.request_type, list(i.args), i.repeats] for i in instances]


@dataclass(frozen=True)
class _Rendering:
    """Builds lm-eval's requests for documents, as its own `build_all_requests` does.

    Attributes:
        objective: says what stands around the question.
        template: the chat template; None for plain text.
        scored_by: what decides a score, beside the task's own configuration.
        grouped: whether the task is one of several, so that its name tells items apart.
    """

    objective: BenchmarkChoice
    template: ChatTemplate | None
    scored_by: list[Any]
    grouped: bool

    def render(self, task: Any, share: Share) -> list[Item]:
        """The items of a share of a task's documents."""
        split = share.split
        docs = task.test_docs() if split == task.config.test_split else task.validation_docs()
        task.set_fewshot_seed(_FEWSHOT_SEED)
        wanted = set(share.ids)
        # Few-shot examples are drawn one document after the other: none may be passed over.
        drawn = bool(task.config.num_fewshot) and task.fewshot_cfg.sampler != "first_n"
        items = []
        for number, doc in enumerate(docs):
            if number in wanted or drawn:
                context = self._context(task, doc)
            if number in wanted:
                items.append(self._item(task, share, number, doc, context))
        return items

    def _context(self, task: Any, doc: dict[str, Any]) -> Any:
        chat = self.template is not None
        return task.fewshot_context(
            doc,
            num_fewshot=task.config.num_fewshot or 0,
            system_instruction=self.objective.system_prompt,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat and self.objective.multiturn,
            chat_template=self.template,
            gen_prefix=task.doc_to_prefix(doc),
        )

    def _item(
        self, task: Any, share: Share, number: int, doc: dict[str, Any], context: Any
    ) -> Item:
        built = task.construct_requests(
            doc=doc,
            ctx=context,
            metadata=(task.task_name, number, task.config.repeats),
            apply_chat_template=self.template is not None,
            chat_template=self.template,
        )
        instances = tuple(built) if isinstance(built, list) else (built,)
        target = _target(task, doc)
        scored_by = [*self.scored_by, _scoring(task)]
        if self.objective.scorer is not None:
            scored_by.append(json.loads(json.dumps(doc, default=str)))
        digest = canonical_digest([_asked(instances), target, scored_by, str(task.VERSION)])
        # A task that puts its choices before the answer gives their number here, not a text.
        text = task.doc_to_text(doc)
        question = text if isinstance(text, str) else str(instances[0].args[0])
        prefix = f"{share.task}/" if self.grouped else ""
        item_id = f"{prefix}{share.split}/{number}"
        return Item(item_id, share.pool, dict(doc), question, instances, target, digest)


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
