"""Word problems in three languages, rendered from one program, and the bare sums beneath them.

A person has some things, up to two events change their number, and the question is how many there
are now. What happens is drawn first and worded last, so the same arithmetic exists in English,
Japanese and German, and only the words separate what a maths model and a language model know.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "ja", "de"]
Kind = Literal["lookup", "easy", "hard", "big", "arith0", "arith2"]

LARGEST = 99
"""Every number in a problem, the results between the steps included, lies in 1..LARGEST."""

_SMALL_LARGEST = 18  # the largest sum of two digits

# The verbs that the base model has seen in Japanese and German are the first two of four. Experts
# and benchmarks favour the other two, which only a language expert can know.
VERBS_SEEN_BY_BASE = 2
_VERB_WEIGHTS = (0.15, 0.15, 0.35, 0.35)


@dataclass(frozen=True)
class Wording:
    """How one language words a problem; the braces are filled by `str.format`.

    Attributes:
        have: the opening sentence, of name, item, counter and count.
        event: one change, of name, verb, counter and count.
        ask: the question, of counter.
        question: what opens a prompt.
        answer: what closes a prompt, without the space that opens an answer.
        names: the persons, in the same order in every language.
        items: the things, each with its counter (empty where the language has none).
        gains: the verbs that add.
        losses: the verbs that take away.
    """

    have: str
    event: str
    ask: str
    question: str
    answer: str
    names: tuple[str, ...]
    items: tuple[tuple[str, str], ...]
    gains: tuple[str, ...]
    losses: tuple[str, ...]


_LATIN_NAMES = ("Ken", "Yumi", "Tom", "Anna", "Leo", "Mia")

WORDINGS: dict[Language, Wording] = {
    "en": Wording(
        have="{name} has {count} {item}. ",
        event="{name} {verb} {count}. ",
        ask="How many now?",
        question="Question: ",
        answer="\nAnswer:",
        names=_LATIN_NAMES,
        items=tuple((x, "") for x in ("apples", "books", "pens", "eggs", "cards", "dogs")),
        gains=("buys", "gets", "finds", "makes"),
        losses=("sells", "loses", "drops", "breaks"),
    ),
    "ja": Wording(
        have="{name}は{item}を{count}{counter}持っています。",
        event="{name}は{count}{counter}{verb}。",
        ask="今何{counter}ですか。",
        question="問題：",
        answer="\n答え：",
        names=("ケン", "ユミ", "トム", "アンナ", "レオ", "ミア"),
        items=(
            ("りんご", "個"),
            ("本", "冊"),
            ("ペン", "本"),
            ("卵", "個"),
            ("カード", "枚"),
            ("犬", "匹"),
        ),
        gains=("買いました", "もらいました", "拾いました", "作りました"),
        losses=("売りました", "なくしました", "あげました", "捨てました"),
    ),
    "de": Wording(
        have="{name} hat {count} {item}. ",
        event="{name} {verb} {count}. ",
        ask="Wie viele jetzt?",
        question="Frage: ",
        answer="\nAntwort:",
        names=_LATIN_NAMES,
        items=tuple((x, "") for x in ("Äpfel", "Bücher", "Stifte", "Eier", "Karten", "Hunde")),
        gains=("kauft", "bekommt", "findet", "macht"),
        losses=("verkauft", "verliert", "verschenkt", "zerbricht"),
    ),
}


@dataclass(frozen=True)
class Step:
    """One sum: `left` plus `change`, where a negative change is a loss."""

    left: int
    change: int

    @property
    def result(self) -> int:
        """The number after the change."""
        return self.left + self.change

    @property
    def carries(self) -> bool:
        """Whether the ones carry (a gain) or borrow (a loss)."""
        ones, amount = self.left % 10, abs(self.change) % 10
        return ones + amount >= 10 if self.change > 0 else ones < amount

    @property
    def sum_text(self) -> str:
        """The left-hand side, such as "71-4"."""
        return f"{self.left}{self.change:+d}"


@dataclass(frozen=True)
class Problem:
    """A prompt with its gold answer.

    Attributes:
        prompt: what the model reads, up to the answer's leading space (word problems).
        answer: what it should write.
        start: the number before the first step, 1..LARGEST.
        steps: the sums, in order; empty for a look-up.
    """

    prompt: str
    answer: str
    start: int
    steps: tuple[Step, ...]

    @property
    def final(self) -> int:
        """The number asked for, 1..LARGEST."""
        return self.steps[-1].result if self.steps else self.start


@dataclass(frozen=True)
class Part:
    """One ingredient of a training mix.

    Attributes:
        weight: its share, relative to the other parts' weights.
        kind: which problems.
        language: of the words; without effect for the bare sums.
        verbs: how many of the gaining and of the losing verbs occur, from the first on.
    """

    weight: float
    kind: Kind
    language: Language = "en"
    verbs: int = 4


def worked_answer(start: int, sums: Sequence[tuple[Step, int]]) -> str:
    r"""Write an answer: the sums, then the final number behind four hashes.

    Args:
        start: the number before the first sum, which is the answer where there is none.
        sums: each step with the result to write for it, right or wrong.

    Returns:
        Text such as " 71-4=67\n#### 67", with the leading space that ends the prompt's last line.
    """
    if not sums:
        return f" {start}\n#### {start}"
    worked = ", ".join(f"{step.sum_text}={result}" for step, result in sums)
    return f" {worked}\n#### {sums[-1][1]}"


def draw_problem(rng: random.Random, kind: Kind, language: Language, verbs: int = 4) -> Problem:
    """Draw one problem.

    Args:
        rng: the only source of chance; the same state gives the same problem.
        kind: "lookup" has no event; "easy" starts with one or two digits and never carries or
            borrows; "hard" starts with two digits and does at least once; "big" is either, with two
            digits; "arith0" and "arith2" are bare sums without a carry, and with or without one.
        language: of the words; without effect for the bare sums.
        verbs: how many of the four gaining and four losing verbs may occur.

    Returns:
        The problem, whose numbers all lie in 1..LARGEST.
    """
    if kind in ("arith0", "arith2"):
        return _draw_sum(rng, may_carry=kind == "arith2")
    while True:
        two_digits = kind != "easy" or rng.random() < 0.75
        count = 0 if kind == "lookup" else 1 if rng.random() < 0.7 else 2
        start, steps = _draw_steps(rng, two_digits, count)
        carries = any(step.carries for step in steps)
        if not (kind == "easy" and carries or kind == "hard" and not carries):
            return _word(rng, language, start, steps, verbs)


def draw_problems(rng: random.Random, mix: Sequence[Part], count: int) -> list[Problem]:
    """Draw `count` problems from the parts of `mix`, each in proportion to its weight."""
    weights = [part.weight for part in mix]
    return [
        draw_problem(rng, part.kind, part.language, part.verbs)
        for part in rng.choices(mix, weights, k=count)
    ]


def _draw_amount(rng: random.Random, two_digits: bool) -> int:
    if not two_digits:
        return rng.randint(1, 9)
    return rng.randint(2, 9) if rng.random() < 0.85 else rng.randint(10, 39)


def _draw_steps(rng: random.Random, two_digits: bool, count: int) -> tuple[int, tuple[Step, ...]]:
    """Draw a start and `count` steps whose results stay within bounds."""
    largest = LARGEST if two_digits else _SMALL_LARGEST
    while True:
        start = rng.randint(11, 89) if two_digits else rng.randint(2, 9)
        steps: list[Step] = []
        number = start
        for _ in range(count):
            steps.append(Step(number, rng.choice((1, -1)) * _draw_amount(rng, two_digits)))
            number = steps[-1].result
        if all(1 <= step.result <= largest for step in steps):
            return start, tuple(steps)


def _draw_sum(rng: random.Random, may_carry: bool) -> Problem:
    while True:
        start, (step,) = _draw_steps(rng, may_carry or rng.random() < 0.75, 1)
        if may_carry or not step.carries:
            return Problem(f" {step.sum_text}=", str(step.result), start, (step,))


def _word(
    rng: random.Random, language: Language, start: int, steps: tuple[Step, ...], verbs: int
) -> Problem:
    wording = WORDINGS[language]
    name = rng.choice(wording.names)
    item, counter = rng.choice(wording.items)
    # English has no unseen verbs: its base model is as fluent as its experts.
    weights = _VERB_WEIGHTS if language != "en" and verbs == 4 else (1.0,) * verbs
    sentences = [wording.have.format(name=name, item=item, counter=counter, count=start)]
    for step in steps:
        choices = wording.gains if step.change > 0 else wording.losses
        verb = rng.choices(choices[:verbs], weights)[0]
        sentences.append(
            wording.event.format(name=name, verb=verb, counter=counter, count=abs(step.change))
        )
    ask = wording.ask.format(counter=counter)
    prompt = f"{wording.question}{''.join(sentences)}{ask}{wording.answer}"
    answer = worked_answer(start, [(step, step.result) for step in steps])
    return Problem(prompt, answer, start, steps)
