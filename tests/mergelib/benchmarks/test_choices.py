"""Loglikelihoods where texts are cut, empty, alone, or too many for the memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mergelib.benchmarks.answers import Meter, NoAnswer
from mergelib.benchmarks.choices import Loglikelihoods, read_pair, read_windows
from mergelib.benchmarks.decoder import Decoder
from mergelib.benchmarks.trial import obstacle
from mergelib.merging.resident import ResidentModel

Open = Callable[..., ResidentModel]

LONG = "red dog sees a green tree and the small bird " * 30


@pytest.fixture(scope="module", params=["llama", "qwen2", "mistral"])
def lm(request: pytest.FixtureRequest, open_model: Open) -> HFLM:
    resident = open_model(request.param)
    return HFLM(pretrained=resident.model, tokenizer=resident.tokenizer, batch_size=3)


def _decoder(lm: HFLM) -> Decoder:
    decoder = Decoder(lm.model)
    assert obstacle(decoder) is None
    return decoder


def _answers(lm: HFLM, asked: list[tuple[str, str]], capacity: int = 64) -> list[Any]:
    pairs: list[Any] = [[read_pair(lm, *pair)] for pair in asked]
    job = Loglikelihoods(_decoder(lm), pairs, ["one"] * len(pairs), False, capacity)
    with torch.inference_mode():
        return job.answer(Meter(lm.model, 1))


def _truth(lm: HFLM, asked: list[tuple[str, str]]) -> list[Any]:
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(asked)]
    return lm.loglikelihood(requests, disable_tqdm=True)


PAIRS = [
    ("big dog", " runs"),
    ("big dog ", "runs"),
    ("big dog  \n", "likes a house"),
    ("<s>big dog", " runs"),
    ("", "red bird"),
    ("", "<s>red bird"),
    ("big dog", " runs"),
    ("x", " "),
    (LONG, "tree"),
    (LONG, " tree house" * 20),
    ("old", LONG[:600]),
    ("cat", "egory"),
]


@pytest.mark.parametrize("capacity", [1, 50, 5000])
def test_any_pair_is_encoded_and_cut_as_lm_eval_does(lm: HFLM, capacity: int) -> None:
    truth = _truth(lm, PAIRS)
    answers = _answers(lm, PAIRS, capacity)
    assert [greedy for _, greedy in answers] == [greedy for _, greedy in truth]
    sums = [chance for chance, _ in truth]
    assert [chance for chance, _ in answers] == pytest.approx(sums, abs=1e-3)


def test_what_the_model_would_write_is_greedy(lm: HFLM) -> None:
    tokens = lm.tokenizer("new house", return_tensors="pt")["input_ids"]
    written = lm.model.generate(tokens, max_new_tokens=3, do_sample=False, eos_token_id=None)
    text = lm.tok_decode(written[0, tokens.shape[1] :].tolist(), skip_special_tokens=False)
    pair = ("new house", text)
    assert _answers(lm, [pair])[0][1] == _truth(lm, [pair])[0][1]


def test_windows_are_those_of_lm_eval(lm: HFLM) -> None:
    texts = [LONG, "red", "", LONG[:700], "big " * 400]
    requests = [Instance("loglikelihood_rolling", {}, (text,), n) for n, text in enumerate(texts)]
    truth = lm.loglikelihood_rolling(requests, disable_tqdm=True)
    windows = [read_windows(lm, text) for text in texts]
    assert max(map(len, windows)) > 1
    job = Loglikelihoods(_decoder(lm), windows, ["a", "a", "b", "a", "b"], True, 300)
    with torch.inference_mode():
        answers = job.answer(Meter(lm.model, 1))
    assert answers == pytest.approx(truth, abs=1e-3, rel=1e-6)


@pytest.mark.parametrize(
    ("context", "text", "reason"),
    [
        ("big dog", "", "the answer '' has no token of its own"),
        ("", "", "the answer '' has no token of its own"),
        ("big", LONG, "tokens; the model takes 400 at a time"),
    ],
)
def test_a_text_that_cannot_be_asked_for_is_named(
    lm: HFLM, context: str, text: str, reason: str
) -> None:
    answer = read_pair(lm, context, text)
    assert isinstance(answer, NoAnswer)
    assert answer.reason.endswith(reason)


def test_tokens_that_are_shared_are_computed_once(lm: HFLM) -> None:
    prompt = "small old house " * 5
    pairs: list[Any] = [
        [read_pair(lm, prompt + end, choice)] for end in ("a", "b c") for choice in (" x", " y z")
    ]
    meter = Meter(lm.model, 0)
    job = Loglikelihoods(_decoder(lm), pairs, ["one"] * 4, False, 500)
    with torch.inference_mode():
        job.answer(meter)
    texts = {pair.span.tokens for (pair,) in pairs}
    assert meter.spent.tokens == len({t[: n + 1] for t in texts for n in range(len(t))})


def test_less_goes_through_the_model_together_when_memory_runs_out(
    lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one thing that a processor's memory does not do on purpose."""
    words = ["red", "blue", "old", "new", "small"]
    asked = [(f"big {word} dog", " runs to a tree") for word in words]
    truth = _answers(lm, asked, 500)
    forward, sizes = Decoder.forward, []

    def short(self: Decoder, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        sizes.append(tokens.shape[1])
        if tokens.shape[1] > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, tokens, *args, **kwargs)

    decoder = _decoder(lm)
    pairs: list[Any] = [[read_pair(lm, *pair)] for pair in asked]
    job = Loglikelihoods(decoder, pairs, ["one"] * len(pairs), False, 500)
    monkeypatch.setattr(Decoder, "forward", short)
    with torch.inference_mode():
        answers = job.answer(Meter(lm.model, 1))
        again = len(sizes)
        job.answer(Meter(lm.model, 1))
    assert [a[0] for a in answers] == pytest.approx([t[0] for t in truth], abs=1e-4)
    assert max(sizes[:again]) > 30 >= max(sizes[again:])
    with pytest.raises(torch.OutOfMemoryError):
        _answers(lm, [("big", LONG[:400])])
