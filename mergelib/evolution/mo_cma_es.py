"""MO-CMA-ES for several objectives, on DEAP's `StrategyMultiObjective`.

As many (1 + 1) strategies as the population, each with a step size and a covariance of its own
(Igel, Hansen and Roth 2007); a child succeeds if it is among those selected, by rank of its front
and then by contribution to the hypervolume (Voss, Hansen and Igel 2010).

A strategy's place x may be outside the box. What is asked is the closest genome, and what that is
worth counts less a trifle for the way to it (Igel et al. 2007, section 5.1). Drawing again until a
point is inside, as `cma_es` does, would keep strategies away from faces, where fronts often end.

The state holds each parent's triangular factor rather than DEAP's two matrices: A with A A^T = C
says all that they say. `tell` rebuilds both in one way.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import moocore
import numpy as np
from deap import cma
from numpy.typing import NDArray

from mergelib.evolution.front import ranks
from mergelib.evolution.one_plus_lambda import LARGEST_CONDITION, well_conditioned
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

FIRST_SIGMA = 1 / 6
SIGMA_RANGE = (1e-12, 1.0)
PENALTY = 1e-6
"""Taken off each objective for each unit of squared distance to the box."""


class _Member(Individual):
    """A place x, what its genome was told to be worth, and as its fitness a trifle less.

    The origin is as DEAP's strategy notes it: "p", its own number; or "o", its parent's.
    """

    def __init__(
        self,
        x: Sequence[float],
        told: Sequence[float],
        fitness: Sequence[float],
        origin: tuple[str, int],
    ) -> None:
        super().__init__(x, fitness)
        self.told = list(told)
        self._ps = origin


def _members(
    x: NDArray[np.float64], told: Sequence[Sequence[float]], origins: Sequence[tuple[str, int]]
) -> list[_Member]:
    """Members at places (n, d), which lose what the way from the box costs."""
    way = x - np.clip(x, 0.0, 1.0)
    worth = np.array(told) - PENALTY * (way**2).sum(axis=1, keepdims=True)
    rows = zip(x.tolist(), told, worth.tolist(), origins, strict=True)
    return [_Member(*row) for row in rows]


class _Strategy(cma.StrategyMultiObjective):  # type: ignore[misc]  # DEAP is untyped
    """DEAP's, selecting the same by moocore: its own loops take a second for a population of 50."""

    def _select(self, candidates: list[_Member]) -> tuple[list[_Member], list[_Member]]:
        if len(candidates) <= self.mu:
            return candidates, []
        scores = np.array([one.fitness.values for one in candidates])
        rank = ranks(scores)
        order = np.argsort(rank, kind="stable")
        last = rank[order[self.mu - 1]]
        chosen = [int(row) for row in order if rank[row] < last]
        front = [int(row) for row in order if rank[row] == last]
        dropped = [int(row) for row in order if rank[row] > last]
        reference = scores.min(axis=0) - 1.0
        while len(chosen) + len(front) > self.mu:
            dropped.append(front.pop(_least(scores[front], reference)))
        chosen += front
        return [candidates[row] for row in chosen], [candidates[row] for row in dropped]

    def _rankOneUpdate(
        self,
        invCholesky: NDArray[np.float64],
        A: NDArray[np.float64],
        alpha: float,
        beta: float,
        v: NDArray[np.float64],
    ) -> Any:
        # v and -v make the same update, but DEAP leaves it out if no entry of A^-1 v is positive.
        w = invCholesky @ v
        sign = 1.0 if w.max() >= -w.min() else -1.0
        return super()._rankOneUpdate(invCholesky, A, alpha, beta, sign * v)


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    state = begin("mo_cma_es", dimension, population, seed, first)
    return {**state, "x": [], "fitness": [], "sigma": [], "A": [], "pc": [], "psucc": []}


def ask(state: State) -> list[Genome]:
    """Sample once around each parent, and take the closest points in the box.

    Returns:
        `population` genomes; a space-filling design as long as no candidate has been scored. If
        parents are fewer, some of the first front have further children.
    """
    return _genomes(_children(state)) if state["x"] else design(state)


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Select parents from parents and children, and adapt the steps of both.

    A genome that was not asked of a parent starts a strategy of its own.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes; a parent's among them has its newer fitness from now on.
        fitness: (n, k), maximised; a row with NaN is a failed candidate, which counts neither as a
            success nor as a failure of its parent.

    Returns:
        The state of the next generation.
    """
    candidates = scored(state, genomes, fitness, objectives=None)
    following = {**state, "generation": state["generation"] + 1}
    if not candidates:
        return following
    told = {tuple(one): list(one.fitness.values) for one in candidates}
    known = [tuple(genome) for genome in _genomes(np.array(state["x"]))]
    values = [told.get(genome, old) for genome, old in zip(known, state["fitness"], strict=True)]
    drawn = _children(state) if known else np.empty((0, state["dimension"]))
    parent = _parent_of(state) if known else np.empty(0, dtype=np.intp)
    strangers: dict[tuple[float, ...], list[float]] = {}
    asked: list[tuple[int, list[float]]] = []
    for candidate, place in zip(candidates, places(_genomes(drawn), candidates), strict=True):
        genome = tuple(candidate)
        if genome in known:
            continue
        if place is None:
            strangers[genome] = told[genome]
        else:
            asked.append((place, list(candidate.fitness.values)))
    strategy = _strategy({**state, "fitness": values}, strangers)
    rows = [place for place, _ in asked]
    origins = [("o", int(parent[place])) for place in rows]
    strategy.update(_members(drawn[rows], [worth for _, worth in asked], origins) if rows else [])
    lower = np.tril_indices(state["dimension"])
    return {
        **following,
        "x": [list(one) for one in strategy.parents],
        "fitness": [one.told for one in strategy.parents],
        "sigma": np.clip(strategy.sigmas, *SIGMA_RANGE).tolist(),
        "A": _factors(np.array(strategy.A))[:, *lower].tolist(),
        "pc": np.array(strategy.pc).tolist(),
        "psucc": [float(one) for one in strategy.psucc],
    }


def _children(state: State) -> NDArray[np.float64]:
    """(population, d) places drawn around the parents."""
    rng = generator(state["seed"], state["generation"], "mo_cma_es")
    parent = _parent_of(state)
    z = rng.standard_normal((state["population"], state["dimension"], 1))
    y = (_square(state["A"], state["dimension"])[parent] @ z)[:, :, 0]
    x: NDArray[np.float64] = np.array(state["x"])[parent]
    return x + np.array(state["sigma"])[parent, None] * y


def _genomes(x: NDArray[np.float64]) -> list[Genome]:
    genomes: list[Genome] = np.clip(x, 0.0, 1.0).tolist()
    return genomes


def _parent_of(state: State) -> NDArray[np.intp]:
    """Which parent each child is drawn from: all in turn, then of the first front at random."""
    own = np.arange(len(state["x"]))
    if len(own) == state["population"]:
        return own
    first_front = np.flatnonzero(ranks(np.array(state["fitness"])) == 0)
    rng = generator(state["seed"], state["generation"], "mo_cma_es_parents")
    more = rng.choice(first_front, state["population"] - len(own))
    return np.concatenate([own, more])


def _strategy(state: State, strangers: Mapping[tuple[float, ...], Sequence[float]]) -> Any:
    """Rebuild DEAP's strategy; strangers come after the parents, with first steps."""
    at = [*state["x"], *strangers]
    worth = [*state["fitness"], *strangers.values()]
    known = len(state["x"])
    origins = [("p", number) for number in range(len(at))]
    members = _members(np.array(at), worth, origins)
    population = state["population"]
    strategy = _Strategy(members, FIRST_SIGMA, mu=population, lambda_=population)
    A = _square(state["A"], state["dimension"])
    for name, values in (
        ("sigmas", state["sigma"]),
        ("A", list(A)),
        ("invCholesky", list(np.linalg.inv(A))),
        ("pc", [np.array(one) for one in state["pc"]]),
        ("psucc", state["psucc"]),
    ):
        getattr(strategy, name)[:known] = values
    return strategy


def _square(lower: Sequence[Sequence[float]], dimension: int) -> NDArray[np.float64]:
    A = np.zeros((len(lower), dimension, dimension))
    A[:, *np.tril_indices(dimension)] = np.reshape(
        lower, (len(lower), dimension * (dimension + 1) // 2)
    )
    return A


def _factors(A: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, d, d) lower triangular L with L L^T = A A^T."""
    S = np.linalg.svd(A, compute_uv=False)
    for row in np.flatnonzero(S[:, -1] * LARGEST_CONDITION < S[:, 0]):
        A[row] = well_conditioned(A[row])
    # A^T = Q R gives R^T without A A^T, whose condition is the square of A's.
    R: Any = np.linalg.qr(A.transpose(0, 2, 1), mode="r")
    L: NDArray[np.float64] = R.transpose(0, 2, 1)
    return L


def _least(scores: NDArray[np.float64], reference: NDArray[np.float64]) -> int:
    """Which row of a front adds least to its hypervolume, the lowest of equals."""
    if scores.shape[1] == 1:  # which moocore refuses; a front of one objective is all equal
        return 0
    return int(np.argmin(moocore.hv_contributions(scores, ref=reference, maximise=True)))
