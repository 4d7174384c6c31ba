"""Particle swarm with constriction (Clerc and Kennedy 2002), after Kennedy and Eberhart (1995).

All particles know the best of all: the populations here are too small for neighbourhoods. A
velocity is at most half the box in each gene. A particle that meets a face is put on it and turns
back at half its speed (Clerc 2012, "Standard Particle Swarm Optimisation", SPSO 2011): one that
stopped there would leave the swarm nothing to come off the face with.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mergelib.evolution.population import Genome, State, begin, design, places, scored
from mergelib.evolution.randomness import generator

PHI = 2.05
"""Pull of the particle's own best and of the swarm's, each; 4.1 together."""

CHI = 2.0 / (2 * PHI - 2.0 + (4 * PHI**2 - 8 * PHI) ** 0.5)
"""Clerc and Kennedy's constriction 2 / |2 - phi - sqrt(phi^2 - 4 phi)| of phi = 4.1: 0.7298."""

LARGEST_VELOCITY = 0.5


class _Moved(NamedTuple):
    x: NDArray[np.float64]
    v: NDArray[np.float64]


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`.

    Particles start at rest (Engelbrecht 2012): the first population is spread over the box anyway.
    """
    state = begin("pso", dimension, population, seed, first)
    return {**state, "x": [], "v": [], "best": [], "fitness": []}


def ask(state: State) -> list[Genome]:
    """Move the particles.

    Returns:
        `population` genomes: where each particle goes next and then, for particles that no scored
        candidate has placed yet, points of a space-filling design.
    """
    particles = len(state["x"])
    moved: list[Genome] = _move(state).x.tolist() if particles else []
    return moved + design(state)[: state["population"] - particles] if particles else design(state)


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Put the scored particles where they were asked to go, and their bests where they were best.

    A particle that failed stays where it was, with the velocity that it had, and tries another way.
    A genome that was not asked becomes a particle while there is room for one; then it can only
    become the best of the particle whose best is closest.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes.
        fitness: (n, 1), maximised; NaN is a failed candidate.

    Returns:
        The state of the next generation.

    Raises:
        InputError: more than one objective.
    """
    candidates = scored(state, genomes, fitness, objectives=1)
    x, v, best, values = ([*state[name]] for name in ("x", "v", "best", "fitness"))
    moved = _move(state) if x else _Moved(np.empty((0, 0)), np.empty((0, 0)))
    for candidate, asked in zip(candidates, places(moved.x.tolist(), candidates), strict=True):
        genome, (value,) = list(candidate), candidate.fitness.values
        if genome in best:  # told again: what it was worth before no longer counts
            values = [value if p == genome else y for p, y in zip(best, values, strict=True)]
            if asked is None:
                continue
        if asked is None and len(x) < state["population"]:
            x.append(genome)
            v.append([0.0] * len(genome))
            best.append(genome)
            values.append(value)
            continue
        if asked is None:
            place = int(np.argmin(np.linalg.norm(np.array(best) - np.array(genome), axis=1)))
        else:
            place = asked
            x[place], v[place] = genome, moved.v[place].tolist()
        if value >= values[place]:
            best[place], values[place] = genome, value
    following = {**state, "generation": state["generation"] + 1}
    return {**following, "x": x, "v": v, "best": best, "fitness": values}


def _move(state: State) -> _Moved:
    x, v, p = (np.array(state[name]) for name in ("x", "v", "best"))
    g = p[int(np.argmax(state["fitness"]))]
    rng = generator(state["seed"], state["generation"], "pso")
    u1, u2 = PHI * rng.random((2, *x.shape))
    v = CHI * (v + u1 * (p - x) + u2 * (g - x))  # Clerc and Kennedy's type 1''
    v = np.clip(v, -LARGEST_VELOCITY, LARGEST_VELOCITY)
    inside = np.clip(x + v, 0.0, 1.0)
    return _Moved(inside, np.where(inside == x + v, v, -v / 2))
