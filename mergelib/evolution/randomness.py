"""Random numbers that depend on the seed and the generation, and on nothing else.

No generator is ever saved: each draw starts a fresh one from (seed, generation, purpose), so a
search that is resumed draws what the uninterrupted one would have drawn, in any process.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import numpy as np
from deap.tools import crossover, emo, mutation, selection

_DEAP_MODULES = (crossover, emo, mutation, selection)
_LOCK = RLock()


def entropy(seed: int, generation: int, purpose: str) -> int:
    """Give the 256-bit number that a generator is seeded with.

    A hash rather than seed + generation: neighbouring seeds then share no generation.

    Args:
        seed: the search's seed, any integer.
        generation: index of the generation, from 0.
        purpose: what is drawn; two purposes draw independently.

    Returns:
        The SHA-256 of the three, the same on every machine.
    """
    return int(hashlib.sha256(f"{seed}/{generation}/{purpose}".encode()).hexdigest(), 16)


def generator(seed: int, generation: int, purpose: str) -> np.random.Generator:
    """Start a numpy generator for one purpose of one generation; see `entropy`."""
    return np.random.default_rng(entropy(seed, generation, purpose))


@contextmanager
def seeded(seed: int, generation: int, purpose: str) -> Iterator[random.Random]:
    """Let DEAP's operators draw from a generator of their own for the duration of a block.

    The operators call `random.random()` and its like on their module's name `random`. That name is
    pointed at a `random.Random` and set back afterwards, so Python's and numpy's global states are
    neither read nor moved. Seeding the global state and restoring it would not do: any other
    thread that draws meanwhile (an orchestrator's retry jitter) would shift what the operators see.
    The names are shared by all threads, hence the lock.

    Args:
        seed: the search's seed.
        generation: index of the generation, from 0.
        purpose: what is drawn.

    Yields:
        The generator, for draws that the caller makes between the operators'.
    """
    rng = random.Random(entropy(seed, generation, purpose))
    with _LOCK:
        before = [module.random for module in _DEAP_MODULES]
        try:
            for module in _DEAP_MODULES:
                module.random = rng
            yield rng
        finally:
            for module, original in zip(_DEAP_MODULES, before, strict=True):
                module.random = original
