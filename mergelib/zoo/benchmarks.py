"""The benchmarks' items: hard problems in each language, with multiple-choice answers."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mergelib.zoo.problems import (
    LARGEST,
    WORDINGS,
    Language,
    Problem,
    Step,
    draw_problem,
    worked_answer,
)

SPLITS = {"search": 1000, "fresh": 500}
"""Rows of each split: a search reads the first, the final comparison the second."""

_CHOICES = 4


@dataclass(frozen=True)
class Item:
    """One row of a benchmark.

    Attributes:
        prompt: what the model reads.
        target: the final number.
        choices: four full answers with four different final numbers in 1..LARGEST.
        gold: the index of the right choice.
        split: "search" or "fresh".
    """

    prompt: str
    target: str
    choices: tuple[str, ...]
    gold: int
    split: str


def draw_items(
    rng: random.Random,
    language: Language,
    seen: Collection[str],
    splits: Mapping[str, int] = SPLITS,
) -> list[Item]:
    """Draw the items of one language, split by split.

    Args:
        rng: the only source of chance.
        language: of the words.
        seen: prompts that must not occur, such as the training text's.
        splits: how many items each split has.

    Returns:
        As many items as `splits` says, no two with the same prompt.
    """
    taken = set(seen)
    items: list[Item] = []
    for split, rows in splits.items():
        for _ in range(rows):
            problem = draw_problem(rng, "hard", language)
            while problem.prompt in taken:
                problem = draw_problem(rng, "hard", language)
            taken.add(problem.prompt)
            choices, gold = draw_choices(rng, problem)
            items.append(Item(problem.prompt, str(problem.final), choices, gold, split))
    return items


def draw_choices(rng: random.Random, problem: Problem) -> tuple[tuple[str, ...], int]:
    """Draw four answers to a problem with at least one step, and say which is right.

    The wrong ones are worked like the right one, each with one fault where there is room: a gain
    taken for a loss (or the reverse), a slip in the last sum, a misread start. More slips fill up.

    Args:
        rng: the only source of chance.
        problem: what is asked; its final number lies in 1..LARGEST.

    Returns:
        The answers in shuffled order and the right one's index. The final numbers are all
        different, and every number lies in 1..LARGEST.
    """
    gold = problem.answer
    answers = {problem.final: gold}
    slips = [_slip(problem, by) for by in _shuffled(rng, (1, -1, 10, -10, 2, -2))]
    starts = [_misread_start(problem, by) for by in _shuffled(rng, (1, -1, 10, -10, 20, -20))]
    flips = [_flip(problem, i) for i in _shuffled(rng, range(len(problem.steps)))]
    for candidates in (flips, slips, starts, *([slip] for slip in slips)):
        if len(answers) < _CHOICES:
            usable = (sums for sums in candidates if _is_distractor(sums, answers))
            for sums in list(usable)[:1]:
                answers[sums[-1][1]] = worked_answer(sums[0][0].left, sums)
    choices = tuple(_shuffled(rng, answers.values()))
    return choices, choices.index(gold)


def write_items(
    out: Path, seed: int, training_prompts: Collection[str], splits: Mapping[str, int] = SPLITS
) -> None:
    """Write `out/zoo_<language>.parquet` for each language.

    Args:
        out: the folder, made where missing; files of these names are replaced.
        seed: decides the items.
        training_prompts: what the family was trained on (`family.training_prompts`); no item asks
            any of it.
        splits: how many items each split has.
    """
    out.mkdir(parents=True, exist_ok=True)
    for language in WORDINGS:
        items = draw_items(
            random.Random(f"zoo {seed} items {language}"), language, training_prompts, splits
        )
        table = pa.Table.from_pylist([vars(item) for item in items])
        pq.write_table(
            table, out / f"zoo_{language}.parquet", compression="zstd", compression_level=19
        )


_T = TypeVar("_T")
_Sums = Sequence[tuple[Step, int]]


def _shuffled(rng: random.Random, values: Iterable[_T]) -> list[_T]:
    order = list(values)
    rng.shuffle(order)
    return order


def _rework(start: int, changes: Iterable[int]) -> _Sums:
    sums = []
    number = start
    for change in changes:
        step = Step(number, change)
        sums.append((step, step.result))
        number = step.result
    return sums


def _flip(problem: Problem, which: int) -> _Sums:
    changes = (-s.change if i == which else s.change for i, s in enumerate(problem.steps))
    return _rework(problem.start, changes)


def _misread_start(problem: Problem, by: int) -> _Sums:
    return _rework(problem.start + by, (step.change for step in problem.steps))


def _slip(problem: Problem, by: int) -> _Sums:
    *before, last = problem.steps
    return [*((step, step.result) for step in before), (last, last.result + by)]


def _is_distractor(sums: _Sums, answers: Collection[int]) -> bool:
    numbers = [sums[0][0].left, *(result for _, result in sums)]
    return all(1 <= n <= LARGEST for n in numbers) and numbers[-1] not in answers
