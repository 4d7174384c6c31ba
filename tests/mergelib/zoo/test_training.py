import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from mergelib.zoo.problems import Part, draw_problems
from mergelib.zoo.tokenizer import train_tokenizer
from mergelib.zoo.training import (
    Example,
    TrainingSettings,
    answer_loss,
    encode_problems,
    learning_rate_share,
    length_sorted_batches,
    train,
)

unhurried = settings(deadline=None)  # a busy machine is not a fault
SETTINGS = TrainingSettings(learning_rate=4e-3, prompt_weight=0.2, batch_size=16)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def problems():
    return draw_problems(random.Random(0), [Part(1, "easy", "en"), Part(1, "arith2")], 320)


@pytest.fixture(scope="module")
def tokenizer(problems):
    return train_tokenizer((p.prompt + p.answer for p in problems), vocabulary=320)


@pytest.fixture(scope="module")
def examples(tokenizer, problems):
    return encode_problems(tokenizer, problems)


def new_model(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, rope_theta=1000.0, **sizes)
    )


def test_an_example_is_bos_prompt_answer_eos(tokenizer, problems, examples):
    for problem, example in zip(problems[:50], examples, strict=False):
        cut = example.prompt_length
        prompt, answer = example.ids[:cut], example.ids[cut:]
        assert (prompt[0], answer[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.decode(prompt[1:]) == problem.prompt
        assert tokenizer.decode(answer[:-1]) == problem.answer


@unhurried
@given(st.lists(st.integers(2, 40), max_size=300), st.integers(1, 9), st.integers(0, 2**32))
def test_batches_hold_every_example_once(lengths, size, seed):
    examples = [Example((i, *(0,) * n), 1) for i, n in enumerate(lengths)]
    batches = length_sorted_batches(examples, size, random.Random(seed))
    assert sorted(e.ids for batch in batches for e in batch) == sorted(e.ids for e in examples)
    assert all(1 <= len(batch) <= size for batch in batches)


def test_batches_pad_little(examples):
    batches = length_sorted_batches(examples, 16, random.Random(0))
    padded = sum(max(len(e.ids) for e in batch) * len(batch) for batch in batches)
    assert padded < 1.15 * sum(len(e.ids) for e in examples)


def test_the_rate_warms_up_and_falls_to_its_floor():
    shares = [learning_rate_share(step, 200, SETTINGS) for step in range(200)]
    top = shares.index(max(shares))
    assert top == 9  # 5 % of 200 steps
    assert shares[:10] == sorted(shares[:10])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert shares[-1] == pytest.approx(SETTINGS.floor, abs=1e-3)
    assert max(shares) <= 1


def test_the_loss_is_the_weighted_mean_over_real_tokens(tokenizer, examples):
    """Held against one unpadded example at a time, token by token."""
    model = new_model(tokenizer)
    batch = sorted(examples, key=lambda e: len(e.ids))[:2] + examples[:2]
    total = weight = 0.0
    with torch.no_grad():
        for example in batch:
            logits = model(input_ids=torch.tensor([example.ids])).logits[0].double()
            for place in range(1, len(example.ids)):
                share = 0.2 if place < example.prompt_length else 1.0
                total -= share * logits[place - 1].log_softmax(-1)[example.ids[place]].item()
                weight += share
        assert answer_loss(model, batch, 0.2).item() == pytest.approx(total / weight, rel=1e-5)


def test_a_few_steps_reduce_the_loss(tokenizer, examples):
    seen = []
    losses = train(
        new_model(tokenizer), examples, SETTINGS, random.Random(0), lambda *now: seen.append(now)
    )
    assert losses[0] == pytest.approx(math.log(len(tokenizer)), rel=0.1)
    assert sum(losses[-3:]) / 3 < 0.8 * losses[0]
    assert seen == [(step, 20) for step in range(1, 21)]


def test_the_same_seed_trains_the_same_weights(tokenizer, examples):
    first, second, other = (new_model(tokenizer) for _ in range(3))
    for model, seed in ((first, 5), (second, 5), (other, 6)):
        train(model, examples[:96], SETTINGS, random.Random(seed))
    assert not first.training
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_training_leaves_no_parameter_behind(tokenizer, examples):
    model = new_model(tokenizer)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    train(model, examples[:16], SETTINGS, random.Random(0))
    assert all(not torch.equal(weight, before[n]) for n, weight in model.named_parameters())
