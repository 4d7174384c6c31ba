"""The random numbers of merges: seeded for each model and tensor, whatever was merged before.

Mergekit 0.1.5 draws the masks of all models and tensors from one stream, one after the other, so
that they depend on the order of the tensors and on what else a recipe asks for. Here its
`sparsify` is wrapped, to draw each model's mask from a seed of its own where one is set.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from mergekit.merge_methods import generalized_task_arithmetic

_MASK_SEEDS: ContextVar[Iterator[int] | None] = ContextVar("mask_seeds", default=None)
"""The seeds of the masks that are drawn next, one for each merged model, in mergekit's order."""


def seed_of(*parts: object) -> int:
    """A seed of 64 bits from what it shall depend on."""
    digest = hashlib.sha256(" ".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@contextmanager
def random_numbers_from(seed: int) -> Iterator[None]:
    """Seed torch's random numbers for a while; afterwards they go on as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def mask_seeds(seeds: Sequence[int]) -> Iterator[None]:
    """Have mergekit draw its next masks from these seeds, one for each model that is merged."""
    token = _MASK_SEEDS.set(iter(seeds))
    try:
        yield
    finally:
        _MASK_SEEDS.reset(token)


def _with_own_seed(sparsify: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def sparsify_seeded(delta: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seeds = _MASK_SEEDS.get()
        if seeds is None:
            return sparsify(delta, *args, **kwargs)
        with random_numbers_from(next(seeds)):
            return sparsify(delta, *args, **kwargs)

    return sparsify_seeded


generalized_task_arithmetic.sparsify = _with_own_seed(generalized_task_arithmetic.sparsify)
