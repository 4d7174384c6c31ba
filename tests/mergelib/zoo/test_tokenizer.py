import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mergelib.zoo.problems import WORDINGS, Part, draw_problem, draw_problems
from mergelib.zoo.tokenizer import train_tokenizer

unhurried = settings(deadline=None)  # a busy machine is not a fault


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer that went through a folder, as its users get it."""
    mix = [Part(1, "big", language) for language in WORDINGS]
    problems = draw_problems(random.Random(0), mix, 600)
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(p.prompt + p.answer for p in problems).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_special_tokens_survive_saving(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.padding_side == "left"


@unhurried
@given(st.integers(0, 2**32), st.sampled_from(list(WORDINGS)))
def test_a_problem_survives_the_round_trip(tokenizer, seed, language):
    problem = draw_problem(random.Random(seed), "hard", language)
    text = problem.prompt + problem.answer
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@unhurried
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids) == text


@unhurried
@given(st.integers(0, 2**32), st.sampled_from(list(WORDINGS)))
def test_bos_is_added_once(tokenizer, seed, language):
    prompt = draw_problem(random.Random(seed), "hard", language).prompt
    ids = tokenizer(prompt)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[1:] == tokenizer(prompt, add_special_tokens=False)["input_ids"]


@unhurried
@given(st.integers(0, 2**32), st.sampled_from(list(WORDINGS)))
def test_prompt_and_answer_do_not_melt_together(tokenizer, seed, language):
    """Training encodes them apart, lm-eval's likelihoods together: the ids must be the same."""
    problem = draw_problem(random.Random(seed), "hard", language)
    apart = tokenizer(problem.prompt)["input_ids"]
    apart += tokenizer(problem.answer, add_special_tokens=False)["input_ids"]
    assert tokenizer(problem.prompt + problem.answer)["input_ids"] == apart


@unhurried
@given(st.integers(0, 10**6))
def test_digits_stand_alone(tokenizer, number):
    tokens = tokenizer.tokenize(f"{number}+{number}", add_special_tokens=False)
    assert [token for token in tokens if token.isdigit()] == [*str(number)] * 2


def test_particles_stand_alone(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("ケンはペンを64本")["input_ids"])
    pieces = [tokenizer.convert_tokens_to_string([token]) for token in tokens]
    assert {"は", "を"} <= set(pieces)
