"""When a text ends and which token is drawn: held to lm-eval and transformers."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from mergelib.benchmarks.answers import NoAnswer
from mergelib.benchmarks.stopping import Rules, Stops, chances, draw, read_rules
from mergelib.merging.resident import ResidentModel

Open = Callable[..., ResidentModel]


@pytest.fixture(scope="module")
def lm(open_model: Open) -> HFLM:
    resident = open_model("llama")
    return HFLM(pretrained=resident.model, tokenizer=resident.tokenizer, batch_size=1)


@pytest.mark.parametrize("until", ["e", "dog", "\n", "?\nAnswer", " ", "é", "</s>", "s h"])
def test_a_text_ends_where_the_criteria_of_lm_eval_end_it(lm: HFLM, until: str) -> None:
    rules = Rules((until,), 60, 0.0, 0, 1.0)
    torch.manual_seed(len(until))
    ends = []
    for _ in range(40):
        tokens = torch.randint(3, len(lm.tokenizer), (60,)).tolist()
        written = lm.tokenizer.encode("big dog sees a tree\nol\u00e9 has house?\nAnswer: old")
        place = int(torch.randint(0, 50, ()))
        tokens = (tokens[:place] + written[1:] + tokens[place:])[:50]
        stops = Stops(lm)
        ours = next((n for n in range(1, 51) if stops.ended(tokens[:n], rules)), None)
        criteria = stop_sequences_criteria(lm.tokenizer, [until], 0, 1)
        theirs = next(
            (n for n in range(1, 51) if criteria(torch.tensor([tokens[:n]]), None).all()), None
        )
        assert ours == theirs
        ends.append(ours)
    assert until == "</s>" or len(set(ends)) > 5


def test_a_text_ends_with_the_end_of_text_token_or_when_it_is_long(lm: HFLM) -> None:
    rules = Rules((), 3, 0.0, 0, 1.0)
    stops = Stops(lm)
    assert not stops.ended([5, 6], rules)
    assert stops.ended([5, 6, 7], rules)
    assert stops.ended([lm.eot_token_id], rules)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 2), st.integers(0, 9), st.floats(0.05, 1))
def test_only_tokens_that_transformers_would_draw_are_drawn(
    seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    logits = 3 * torch.randn(30, generator=torch.Generator().manual_seed(seed))
    scores = TemperatureLogitsWarper(temperature)(None, logits[None])
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    scores = TopPLogitsWarper(top_p)(None, scores)[0]
    rules = Rules((), 1, temperature, top_k, top_p)
    drawn = {draw(logits, rules, chance) for chance in torch.linspace(0, 1, 300).tolist()}
    likely = scores.softmax(0) > 0.01
    assert drawn <= set(scores.isfinite().nonzero()[:, 0].tolist())
    assert drawn >= set(likely.nonzero()[:, 0].tolist())


def test_tokens_are_drawn_as_often_as_their_chances_say() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    rules = Rules((), 1, 0.7, 3, 1.0)
    numbers = chances(("a text", 0), 20_000)
    counts = Counter(draw(logits, rules, chance) for chance in numbers)
    expected = torch.where(logits >= 0, logits / 0.7, -torch.inf).softmax(0)
    for token, share in enumerate(expected.tolist()):
        assert counts[token] / len(numbers) == pytest.approx(share, abs=0.01)


def test_chances_follow_from_the_text_and_its_repeat() -> None:
    assert chances(("one", 0), 5).tolist() == chances(("one", 0), 5).tolist()
    assert chances(("one", 0), 5).tolist() != chances(("one", 1), 5).tolist()


def test_arguments_are_read_as_lm_eval_reads_them(lm: HFLM) -> None:
    assert read_rules(lm, {"until": "x", "max_new_tokens": 9, "temperature": 0.5}) == Rules(
        ("x", "</s>"), 9, 0.5, 50, 1.0
    )
    assert read_rules(lm, {"do_sample": False, "temperature": 0.5, "top_p": 0.9}) == Rules(
        ("</s>",), 256, 0.0, 50, 0.9
    )
    drawn = {"do_sample": True, "temperature": 1, "top_k": 0, "top_p": 0.3, "until": ["a", "b"]}
    assert read_rules(lm, drawn) == Rules(("a", "b", "</s>"), 256, 1.0, 0, 0.3)


def test_what_only_transformers_does_is_left_to_it(
    lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_rules(lm, {"num_beams": 4}) is None
    settings = lm.model.generation_config
    monkeypatch.setattr(settings, "repetition_penalty", 1.1)
    assert read_rules(lm, {}) is None


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"max_gen_toks": 400}, "max_gen_toks is 400; the model takes 400 tokens"),
        ({"do_sample": True}, "do_sample with temperature 0; it must be above 0"),
    ],
)
def test_what_cannot_be_is_named(lm: HFLM, asked: dict[str, Any], reason: str) -> None:
    rules = read_rules(lm, asked)
    assert isinstance(rules, NoAnswer)
    assert rules.reason.startswith(reason)
