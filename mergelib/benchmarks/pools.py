"""Which items may be used for what: the search's pool, and the pool of fresh items."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mergelib.errors import InputError
from mergelib.sections.objectives import BenchmarkChoice

if TYPE_CHECKING:
    from mergelib.benchmarks.items import Item

Pool = Literal["search", "fresh"]


class Share(NamedTuple):
    """Documents of one lm-eval task that go into one pool.

    Attributes:
        task: the task's name.
        pool: the pool.
        split: lm-eval's split.
        ids: their positions in it, ascending.
    """

    task: str
    pool: Pool
    split: str
    ids: list[int]


def shuffled(seed: int, count: int) -> list[int]:
    """The order in which documents are shared out: the first half is for the search."""
    order: list[int] = _random(seed).permutation(count).tolist()
    return order


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0x17E45])  # a stream of its own


def share_out(
    tasks: Mapping[str, Any],
    shown: Collection[tuple[str, int]],
    choice: BenchmarkChoice,
    key: str,
    seed: int,
) -> list[Share]:
    """Share documents out.

    A task with a validation and a test split gives one to each pool; otherwise the seed decides.

    Args:
        tasks: lm-eval's tasks by name; several of a group.
        shown: documents, by split and position, that are few-shot examples: they are in no pool.
        choice: caps the pools.
        key: the search file's key, for error messages.
        seed: decides how documents are shared out and which ones a cap keeps.

    Raises:
        InputError: fewer documents than a cap asks for, or than the 2 that a pool needs.
    """
    random = _random(seed)
    halves: dict[Pool, list[tuple[str, str, int]]] = {"search": [], "fresh": []}
    for name, task in tasks.items():
        config = task.config
        two_splits = task.has_validation_docs() and task.has_test_docs()
        if two_splits and config.validation_split != config.test_split:
            splits = (config.validation_split, config.test_split)
            parts = (range(len(task.validation_docs())), range(len(task.test_docs())))
        else:
            splits = (config.test_split or config.validation_split,) * 2
            order = random.permutation(len(task.eval_docs)).tolist()
            parts = (order[: len(order) // 2], order[len(order) // 2 :])
        for pool, split, part in zip(halves, splits, parts, strict=True):
            halves[pool] += [(name, str(split), n) for n in part if (split, n) not in shown]
    shares = []
    for pool, most in (("search", choice.search_items), ("fresh", choice.fresh_items)):
        kept = _kept(halves[pool], most, random, choice, f"{key}.{pool}_items")
        if len(kept) < 2:
            raise InputError(
                f"{key}.benchmark: {choice.reference} leaves {len(kept)} items for the {pool} "
                "pool; at least 2 needed"
            )
        for name in tasks:
            own = [(split, n) for of, split, n in kept if of == name]
            if own:
                shares.append(Share(name, pool, own[0][0], sorted(n for _, n in own)))
    return shares


def _kept(
    documents: list[tuple[str, str, int]],
    most: int | None,
    random: np.random.Generator,
    choice: BenchmarkChoice,
    key: str,
) -> list[tuple[str, str, int]]:
    """As many of the documents as a cap allows, at random."""
    if most is None:
        return documents
    if most > len(documents):
        raise InputError(f"{key}: {most}, but {choice.reference} has {len(documents)} for this")
    return [documents[n] for n in random.permutation(len(documents))[:most]]


def unseen(items: list["Item"], shots: bool, key: str) -> list["Item"]:
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
