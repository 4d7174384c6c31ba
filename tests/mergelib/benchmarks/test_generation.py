"""Texts that models write: the same as lm-eval's, in any batch, drawn by a seed of their own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mergelib.benchmarks.answers import Meter, NoAnswer
from mergelib.benchmarks.decoder import Decoder
from mergelib.benchmarks.generation import Generations, read_prompt
from mergelib.benchmarks.trial import obstacle
from mergelib.merging.resident import ResidentModel

Open = Callable[..., ResidentModel]

BEGINNING = "old tree has a cat. " * 12
PROMPTS = [BEGINNING + end for end in ("red", "blue dog", "a b c d e", "x", "new house likes")]
LONG = "red dog sees a green tree and the small bird " * 30
GREEDY = {"until": ["ee", "\n"], "max_gen_toks": 20, "do_sample": False}
DRAWN = {"until": ["dog"], "max_gen_toks": 20, "temperature": 1.5, "do_sample": True}


@pytest.fixture(scope="module", params=["llama", "qwen2", "mistral", "gemma3"])
def lm(request: pytest.FixtureRequest, open_model: Open) -> HFLM:
    resident = open_model(request.param)
    return HFLM(pretrained=resident.model, tokenizer=resident.tokenizer, batch_size=1)


def _requests(prompts: list[str], asked: dict[str, Any]) -> list[Instance]:
    return [Instance("generate_until", {}, (p, dict(asked)), n) for n, p in enumerate(prompts)]


def _decoder(lm: HFLM) -> Decoder:
    decoder = Decoder(lm.model)
    assert obstacle(decoder) is None
    assert decoder.shares == (not decoder.has_window)
    return decoder


def _job(lm: HFLM, requests: list[Instance], batch: int, capacity: int = 64) -> Generations:
    prompts: list[Any] = [read_prompt(lm, request) for request in requests]
    return Generations(lm, _decoder(lm), prompts, batch, capacity)


def _texts(job: Generations, lm: HFLM) -> list[str]:
    with torch.inference_mode():
        return job.answer(Meter(lm.model, 0))


@pytest.mark.parametrize("batch", [1, 3, 99])
def test_texts_are_those_of_lm_eval_in_any_batch(lm: HFLM, batch: int) -> None:
    prompts = [*PROMPTS, "old", LONG, "<s>big dog", PROMPTS[0]]
    requests = _requests(prompts, GREEDY)
    requests += _requests(PROMPTS[:3], {"max_gen_toks": 7, "until": "a"})
    truth = lm.generate_until(requests, disable_tqdm=True)
    assert _texts(_job(lm, requests, batch), lm) == truth
    assert len(set(map(len, truth))) > 3


def test_drawn_texts_do_not_depend_on_the_batch(lm: HFLM) -> None:
    requests = _requests([PROMPTS[0], *PROMPTS], DRAWN)
    alone, together = (_texts(_job(lm, requests, batch), lm) for batch in (1, 99))
    assert alone == together
    assert alone[0] != alone[1], "a repeat is drawn anew"
    greedy = _texts(_job(lm, _requests(PROMPTS, DRAWN | {"do_sample": False}), 99), lm)
    assert greedy != alone[1:]
    likeliest = _texts(_job(lm, _requests(PROMPTS, DRAWN | {"top_k": 1}), 99), lm)
    assert likeliest == greedy


def test_prompts_are_computed_once_and_finished_rows_leave(lm: HFLM) -> None:
    requests = _requests([*PROMPTS, PROMPTS[0]], GREEDY)
    job = _job(lm, requests, 99, capacity=1000)
    meter = Meter(lm.model, 0)
    with torch.inference_mode():
        texts = job.answer(meter)
    prompts = {tuple(lm.tokenizer(p)["input_ids"]) for p in PROMPTS}
    distinct = len({p[: n + 1] for p in prompts for n in range(len(p))})
    written = meter.spent.tokens - distinct
    lengths = [len(lm.tok_encode(text)) for text in texts[:-1]]
    assert 0 < written <= 5 * 19
    assert texts[-1] == texts[0]
    if max(lengths) > 10 > min(lengths):
        assert written < 5 * 19


def test_less_is_written_together_when_memory_runs_out(
    lm: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one thing that a processor's memory does not do on purpose."""
    requests = _requests(PROMPTS, GREEDY)
    truth = _texts(_job(lm, requests, 99), lm)
    job = _job(lm, requests, 99)
    forward, rows = Decoder.forward, []

    def short(self: Decoder, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        rows.append(len(tokens))
        if len(tokens) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, tokens, *args, **kwargs)

    monkeypatch.setattr(Decoder, "forward", short)
    assert _texts(job, lm) == truth
    assert max(rows) > 2
    rows.clear()
    assert _texts(job, lm) == truth
    assert max(rows) == 2

    def none(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Decoder, "forward", none)
    with pytest.raises(torch.OutOfMemoryError):
        _texts(job, lm)


def test_a_prompt_without_tokens_is_named(open_model: Open) -> None:
    resident = open_model("qwen2")
    lm = HFLM(pretrained=resident.model, tokenizer=resident.tokenizer, batch_size=1)
    (request,) = _requests([""], GREEDY)
    assert read_prompt(lm, request) == NoAnswer("the prompt has no token")
