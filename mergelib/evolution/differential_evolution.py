"""Differential evolution, DE/best/1/bin (Storn and Price 1997).

The difference of two members, scaled, is added to the best; the trial takes each gene from that sum
or from the member that it challenges. The base is the best rather than a random member, the paper's
other main scheme: that needs generations to gain speed, and a search here has a dozen. F = 0.8 is
in the middle of the paper's [0.5, 1] and CR = 0.9 its choice for a quick search; with F = 0.5 a
population of a dozen gathers around the best before it is anywhere near the optimum.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mergelib.evolution.population import (
    Genome,
    Individual,
    State,
    begin,
    design,
    places,
    scored,
)
from mergelib.evolution.randomness import generator
from mergelib.evolution.variation import parents, with_parents

F = 0.8
CR = 0.9
SMALLEST = 4
"""A target, the best, and two others: fewer than these have hardly a difference to add."""


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    state = begin("de", dimension, population, seed, first, smallest=SMALLEST)
    return {**state, "parents": [], "fitness": []}


def ask(state: State) -> list[Genome]:
    """Give each member its challenger.

    Returns:
        `population` genomes: a trial for each member, then, for places that are still free, points
        of a space-filling design; nothing but the design while there are fewer than four members.
    """
    members = len(state["parents"])
    if members < SMALLEST:
        return design(state)
    trials: list[Genome] = _trials(state).tolist()
    return trials + design(state)[: state["population"] - members]


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Let each trial replace the member that it challenged, if it is no worse.

    A genome that was not asked, or that has no member to challenge, takes a free place; when there
    is none, it challenges the member closest to it.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes.
        fitness: (n, 1), maximised; NaN is a failed candidate, whose member stays.

    Returns:
        The state of the next generation.

    Raises:
        InputError: more than one objective.
    """
    candidates = scored(state, genomes, fitness, objectives=1)
    members = parents(state)
    asked = _trials(state).tolist() if len(members) >= SMALLEST else []
    known = {tuple(one): place for place, one in enumerate(members)}
    for candidate, challenged in zip(candidates, places(asked, candidates), strict=True):
        again = known.get(tuple(candidate))
        if again is not None and list(members[again]) == list(candidate):
            members[again] = candidate
            continue
        if challenged is None and len(members) < state["population"]:
            known[tuple(candidate)] = len(members)
            members.append(candidate)
            continue
        place = _closest(members, candidate) if challenged is None else challenged
        if candidate.fitness.values >= members[place].fitness.values:
            members[place] = candidate
            known[tuple(candidate)] = place
    return with_parents(state, members)


def _trials(state: State) -> NDArray[np.float64]:
    x = np.array(state["parents"])
    n, d = x.shape
    rng = generator(state["seed"], state["generation"], "de")
    order = rng.random((n, n))
    np.fill_diagonal(order, np.inf)
    r1, r2 = np.argsort(order, axis=1)[:, :2].T
    v = x[int(np.argmax(state["fitness"]))] + F * (x[r1] - x[r2])
    # Past a face of the box: halfway from the member to the face (Price, Storn and Lampinen 2005).
    v = np.where(v < 0.0, x / 2, np.where(v > 1.0, (1.0 + x) / 2, v))
    crossed = rng.random((n, d)) < CR
    crossed[np.arange(n), rng.integers(d, size=n)] = True
    u: NDArray[np.float64] = np.where(crossed, v, x)
    return u


def _closest(members: Sequence[Individual], candidate: Individual) -> int:
    distances = np.linalg.norm(np.array(members) - np.array(candidate), axis=1)
    return int(np.argmin(distances))
