import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergelib.zoo.benchmarks import draw_choices
from mergelib.zoo.problems import (
    LARGEST,
    VERBS_SEEN_BY_BASE,
    WORDINGS,
    Part,
    Problem,
    Step,
    draw_problem,
    draw_problems,
    worked_answer,
)

KINDS = ("lookup", "easy", "hard", "big", "arith0", "arith2")
WORDED = ("lookup", "easy", "hard", "big")
LANGUAGES = tuple(WORDINGS)

unhurried = settings(deadline=None)  # a busy machine is not a fault
seeds = st.integers(0, 2**32)
kinds = st.sampled_from(KINDS)
worded = st.sampled_from(WORDED)
languages = st.sampled_from(LANGUAGES)


def draw(seed: int, kind: str, language: str, **more) -> Problem:
    return draw_problem(random.Random(seed), kind, language, **more)


def read_changes(prompt: str, language: str) -> tuple[int, list[int]]:
    """Read a prompt back from its words alone: the start and the signed changes."""
    wording = WORDINGS[language]
    signs = {verb: 1 for verb in wording.gains} | {verb: -1 for verb in wording.losses}
    # Longest first: the German "kauft" also ends "verkauft".
    by_length = sorted(signs, key=len, reverse=True)
    first, *events = [s for s in re.split(r"[.。]", prompt) if re.search(r"\d", s)]
    changes = []
    for event in events:
        verb = next(verb for verb in by_length if verb in event)
        changes.append(signs[verb] * int(re.search(r"\d+", event)[0]))
    return int(re.search(r"\d+", first)[0]), changes


def carries(left: int, change: int) -> bool:
    """Tell a carry or borrow by the tens: they move by more than the change's own tens."""
    tens = abs(change) // 10
    moved = abs((left + change) // 10 - left // 10)
    return moved != tens


@unhurried
@given(seeds, worded, languages)
def test_a_prompt_reads_back_as_its_sums(seed, kind, language):
    problem = draw(seed, kind, language)
    start, changes = read_changes(problem.prompt, language)
    assert start == problem.start
    assert changes == [step.change for step in problem.steps]
    assert problem.final == start + sum(changes)


@unhurried
@given(seeds, worded, languages)
def test_an_answer_works_its_sums(seed, kind, language):
    problem = draw(seed, kind, language)
    work, final = problem.answer.split("\n#### ")
    assert int(final) == problem.final
    if kind == "lookup":
        assert work == f" {final}"
        return
    number = problem.start
    for text in work.strip().split(", "):
        left, sign, amount, result = re.fullmatch(r"(\d+)([+-])(\d+)=(\d+)", text).groups()
        assert int(left) == number
        number += int(amount) if sign == "+" else -int(amount)
        assert int(result) == number
    assert number == problem.final


@unhurried
@given(seeds, kinds, languages)
def test_numbers_stay_within_bounds(seed, kind, language):
    problem = draw(seed, kind, language)
    assert all(1 <= n <= LARGEST for n in (problem.start, *(s.result for s in problem.steps)))
    assert all(1 <= abs(step.change) <= 39 for step in problem.steps)
    if kind in ("hard", "big", "lookup"):
        assert 11 <= problem.start <= 89


@unhurried
@given(seeds, kinds, languages)
def test_a_kind_says_whether_something_carries(seed, kind, language):
    steps = draw(seed, kind, language).steps
    carrying = [carries(step.left, step.change) for step in steps]
    assert carrying == [step.carries for step in steps]
    if kind in ("lookup", "easy", "arith0"):
        assert not any(carrying)
    if kind == "hard":
        assert any(carrying)


@unhurried
@given(seeds, st.sampled_from(["arith0", "arith2"]))
def test_a_bare_sum_is_right(seed, kind):
    problem = draw(seed, kind, "en")
    left, sign, right = re.fullmatch(r" (\d+)([+-])(\d+)=", problem.prompt).groups()
    right = int(right) if sign == "+" else -int(right)
    assert int(problem.answer) == int(left) + right == problem.final


@unhurried
@given(seeds, kinds, languages)
def test_the_same_seed_draws_the_same_problem(seed, kind, language):
    assert draw(seed, kind, language) == draw(seed, kind, language)


@pytest.mark.parametrize("language", ["ja", "de"])
def test_the_base_never_sees_the_unseen_verbs(language):
    mix = [Part(1, "easy", language, VERBS_SEEN_BY_BASE)]
    text = "".join(p.prompt for p in draw_problems(random.Random(0), mix, 500))
    wording = WORDINGS[language]
    seen = wording.gains[:VERBS_SEEN_BY_BASE] + wording.losses[:VERBS_SEEN_BY_BASE]
    unseen = wording.gains[VERBS_SEEN_BY_BASE:] + wording.losses[VERBS_SEEN_BY_BASE:]
    assert all(verb in text for verb in seen)
    assert not any(verb in text for verb in unseen)


@pytest.mark.parametrize("language", ["ja", "de"])
def test_targets_favour_the_unseen_verbs(language):
    wording = WORDINGS[language]
    unseen = wording.gains[VERBS_SEEN_BY_BASE:] + wording.losses[VERBS_SEEN_BY_BASE:]
    problems = draw_problems(random.Random(0), [Part(1, "hard", language)], 1000)
    problems = [p for p in problems if len(p.steps) == 1]
    share = sum(any(verb in p.prompt for verb in unseen) for p in problems) / len(problems)
    assert share == pytest.approx(0.7, abs=0.06)


def test_a_mix_keeps_its_weights():
    mix = [Part(3, "lookup", "en"), Part(1, "arith2")]
    counts = Counter(len(p.steps) for p in draw_problems(random.Random(0), mix, 2000))
    assert counts[0] / 2000 == pytest.approx(0.75, abs=0.04)


def test_verbs_differ_within_a_language():
    for wording in WORDINGS.values():
        assert len({*wording.gains, *wording.losses}) == 8


def test_worked_answer_writes_what_it_is_told():
    steps = [(Step(71, -4), 67), (Step(67, 5), 73)]
    assert worked_answer(71, steps) == " 71-4=67, 67+5=73\n#### 73"
    assert worked_answer(8, []) == " 8\n#### 8"


@unhurried
@given(seeds, languages)
def test_choices_differ_and_hold_the_right_answer(seed, language):
    rng = random.Random(seed)
    problem = draw_problem(rng, "hard", language)
    choices, gold = draw_choices(rng, problem)
    finals = [int(choice.split("\n#### ")[1]) for choice in choices]
    assert choices[gold] == problem.answer
    assert len(choices) == len(set(finals)) == 4
    assert all(1 <= int(number) <= LARGEST for c in choices for number in re.findall(r"\d+", c))


def test_the_right_choice_stands_anywhere():
    rng = random.Random(0)
    golds = Counter(draw_choices(rng, draw_problem(rng, "hard", "ja"))[1] for _ in range(800))
    assert sorted(golds) == [0, 1, 2, 3]
    assert min(golds.values()) > 140
