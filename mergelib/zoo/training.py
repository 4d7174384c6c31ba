"""Train a small causal language model on problems, on the CPU, in a few minutes.

The matrices are trained by Muon (Keller Jordan, "Muon: an optimizer for hidden layers in neural
networks", 2024), which needs far fewer steps here than AdamW; embeddings, head and norms by AdamW.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from mergelib.zoo.problems import Problem

_CHUNK_BATCHES = 16  # sort by length within so many batches: little padding, and still shuffled


@dataclass(frozen=True)
class Example:
    """One problem as ids: bos, prompt, answer, eos.

    Attributes:
        ids: the whole sequence.
        prompt_length: how many of the ids, bos included, are the prompt's.
    """

    ids: tuple[int, ...]
    prompt_length: int


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained, in one pass over its examples.

    Attributes:
        learning_rate: at the end of the warm-up, of Muon (whose update is scaled to the size of an
            AdamW update) and of AdamW.
        prompt_weight: what a prompt's token counts in the loss, where an answer's counts 1.
        batch_size: examples a step.
        warm_up: the share of the steps over which the rate rises linearly.
        floor: where the cosine ends, as a share of `learning_rate`.
        weight_decay: decoupled, of both optimisers.
        largest_norm: what the gradient's norm is clipped to.
    """

    learning_rate: float
    prompt_weight: float
    batch_size: int = 32
    warm_up: float = 0.05
    floor: float = 0.05
    weight_decay: float = 0.01
    largest_norm: float = 1.0


def encode_problems(tokenizer: Any, problems: Sequence[Problem]) -> list[Example]:
    """Encode each problem.

    Args:
        tokenizer: a Hugging Face tokenizer that puts bos before a text, with an eos token.
        problems: what to encode.

    Returns:
        One example a problem, in order. Prompt and answer are encoded apart, because a prompt that
        is asked alone ends in the same ids.
    """
    prompts = tokenizer([problem.prompt for problem in problems])["input_ids"]
    answers = tokenizer([p.answer for p in problems], add_special_tokens=False)["input_ids"]
    return [
        Example((*prompt, *answer, tokenizer.eos_token_id), len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def length_sorted_batches(
    examples: Sequence[Example], size: int, rng: random.Random
) -> list[list[Example]]:
    """Cut the examples into batches of like length, in shuffled order.

    Returns:
        Batches of `size` examples (the last of them may be smaller) that hold every example once.
    """
    order = list(examples)
    rng.shuffle(order)
    batches: list[list[Example]] = []
    for first in range(0, len(order), size * _CHUNK_BATCHES):
        chunk = sorted(order[first : first + size * _CHUNK_BATCHES], key=lambda e: len(e.ids))
        cut = [chunk[i : i + size] for i in range(0, len(chunk), size)]
        rng.shuffle(cut)
        batches += cut
    return batches


def learning_rate_share(step: int, steps: int, settings: TrainingSettings) -> float:
    """Give the share of the learning rate at `step` (0..steps-1): linear warm-up, then a cosine."""
    warm_up = min(1.0, (step + 1) / max(1.0, settings.warm_up * steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return warm_up * (settings.floor + (1 - settings.floor) * cosine)


def answer_loss(model: Any, batch: Sequence[Example], prompt_weight: float) -> torch.Tensor:
    """Compute the weighted mean cross-entropy of the next token over a batch.

    Args:
        model: a causal language model.
        batch: the examples; they are padded on the right, where no real token attends.
        prompt_weight: what a prompt's token counts, where an answer's counts 1.

    Returns:
        A scalar, in nats a token.
    """
    longest = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    weights = torch.zeros(len(batch), longest)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        weights[row, : example.prompt_length] = prompt_weight
        weights[row, example.prompt_length : len(example.ids)] = 1.0
    logits = model(input_ids=ids[:, :-1]).logits
    losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return torch.dot(losses, weights[:, 1:].flatten()) / weights[:, 1:].sum()


def train(
    model: Any,
    examples: Sequence[Example],
    settings: TrainingSettings,
    rng: random.Random,
    on_step: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Train `model` in place with one pass over the examples.

    Args:
        model: a causal language model in float32; left in evaluation mode.
        examples: what it learns from.
        settings: how.
        rng: orders the examples.
        on_step: called after each step with the steps done and their total.

    Returns:
        Each step's loss, in nats a token.
    """
    batches = length_sorted_batches(examples, settings.batch_size, rng)
    optimisers = list(_optimisers(model, settings))
    losses: list[float] = []
    model.train()
    for step, batch in enumerate(batches):
        rate = settings.learning_rate * learning_rate_share(step, len(batches), settings)
        loss = answer_loss(model, batch, settings.prompt_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.largest_norm)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad()
        losses.append(loss.item())
        if on_step is not None:
            on_step(step + 1, len(batches))
    model.eval()
    return losses


def _optimisers(model: Any, settings: TrainingSettings) -> Iterator[torch.optim.Optimizer]:
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() == 2 and "embed" not in name and "lm_head" not in name
        (matrices if is_matrix else rest).append(parameter)
    rate, decay = settings.learning_rate, settings.weight_decay
    yield torch.optim.Muon(matrices, rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    yield torch.optim.AdamW(rest, rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)
