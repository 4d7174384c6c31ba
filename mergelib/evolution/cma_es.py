"""(mu/mu_w, lambda)-CMA-ES for one objective (Hansen and Ostermeier 2001), on DEAP's `Strategy`.

The distribution is the state: mean, step size, covariance, both paths and the number of updates.
Eigenvectors are not kept. `ask` and `tell` both rebuild the strategy from the state in one way,
so that a search that was stopped and resumed does the same arithmetic as one that was not. Another
linear algebra library, or another number of its threads when d is past 100, may round differently.

A search that has converged or stands on a plateau starts again elsewhere: a local restart with the
population as it is, since that is the user's. What triggers it is Hansen's tutorial (2016,
arXiv:1604.00772, appendix B.3): the step size has collapsed (TolX), or the best of a generation
has been the same to the bit for 10 + 30 d / lambda generations (EqualFunValues), which takes in
generations that are flat altogether.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from deap import cma
from numpy.typing import NDArray

from mergelib.evolution.population import Genome, Individual, State, begin, first_of, scored
from mergelib.evolution.randomness import generator

FIRST_SIGMA = 1 / 6
"""Three standard deviations from the middle of the box to its faces."""

SIGMA_RANGE = (1e-12, 1.0)
"""Below, steps are lost in rounding; above, a flat landscape would make it grow without end."""

LARGEST_CONDITION = 1e14
"""Of C; the limit of Hansen's tutorial (2016, appendix B.3), here held instead of stopping."""

RESAMPLES = 20

SMALLEST_STEP = 1e-9
"""Of the longest axis, sigma times the root of C's largest eigenvalue: no weight moves any more."""


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`.

    The mean is the middle of the box or, if `first` is a single genome, that genome.
    """
    state = begin("cma_es", dimension, population, seed, first)
    return {
        **state,
        **_distribution(list(state["first"][0]) if len(first) == 1 else [0.5] * dimension),
        **_NOTHING_KNOWN,
    }


def ask(state: State) -> list[Genome]:
    """Sample the distribution; in generation 0 the genomes of `first` come before the samples.

    A point outside the box is drawn again, 20 times at most, and then clipped.

    Returns:
        `population` genomes.
    """
    first = first_of(state)
    strategy = _strategy(state)
    rng = generator(state["seed"], state["generation"], "cma_es")
    x = _draw(strategy, rng, state["population"] - len(first))
    for _ in range(RESAMPLES):
        outside = np.flatnonzero(((x < 0.0) | (x > 1.0)).any(axis=1))
        if outside.size == 0:
            break
        x[outside] = _draw(strategy, rng, outside.size)
    samples: list[Genome] = np.clip(x, 0.0, 1.0).tolist()
    return first + samples


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Move the distribution towards the better half, or start it again elsewhere.

    With fewer than mu candidates scored, the update is that of a strategy with as many parents as
    there are: weights and learning rates follow from that number, so the step size does not drift.
    With none, the distribution stays as it is and the next `ask` draws anew.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes.
        fitness: (n, 1), maximised; NaN is a failed candidate, which has no part in the update.

    Returns:
        The state of the next generation. Its `incumbent` is the best candidate of all restarts with
        its fitness, the newest value if it was told more than once; `restarts` counts them.

    Raises:
        InputError: more than one objective.
    """
    candidates = scored(state, genomes, fitness, objectives=1)
    following = {**state, "generation": state["generation"] + 1}
    if not candidates:
        return following
    following |= _noted(state, candidates)
    strategy = _strategy(state, parents=len(candidates))
    first = first_of(state)
    strategy.update([_pulled_in(strategy, one) if one in first else one for one in candidates])
    if _stands_still(following["bests"], strategy):
        rng = generator(state["seed"], state["generation"], "cma_es_restart")
        return {
            **following,
            **_distribution([rng.random() for _ in range(state["dimension"])]),
            "bests": [],
            "restarts": following["restarts"] + 1,
        }
    return {
        **following,
        "centroid": strategy.centroid.tolist(),
        "sigma": float(np.clip(strategy.sigma, *SIGMA_RANGE)),
        "C": _well_conditioned(strategy.C).tolist(),
        "pc": strategy.pc.tolist(),
        "ps": strategy.ps.tolist(),
        "update_count": strategy.update_count,
    }


_NOTHING_KNOWN: State = {"restarts": 0, "bests": [], "incumbent": None}


def _distribution(mean: list[float]) -> State:
    d = len(mean)
    return {
        "centroid": mean,
        "sigma": FIRST_SIGMA,
        "C": np.identity(d).tolist(),
        "pc": [0.0] * d,
        "ps": [0.0] * d,
        "update_count": 0,
    }


def _noted(state: State, candidates: Sequence[Individual]) -> State:
    """Note the best of this generation, of the window since the restart, and of the search."""
    state = {**_NOTHING_KNOWN, **state}  # a search that began before there were restarts goes on
    best = max(candidates, key=lambda one: one.fitness.values)
    incumbent = state["incumbent"]
    if incumbent is not None:
        for one in candidates:
            if list(one) == incumbent["genome"]:
                incumbent = {"genome": list(one), "fitness": one.fitness.values[0]}
    if incumbent is None or best.fitness.values[0] >= incumbent["fitness"]:
        incumbent = {"genome": list(best), "fitness": best.fitness.values[0]}
    window = _window(state["dimension"], state["population"])
    bests = [*state["bests"], best.fitness.values[0]][-window:]
    return {"restarts": state["restarts"], "bests": bests, "incumbent": incumbent}


def _window(dimension: int, population: int) -> int:
    return 10 + ceil(30 * dimension / population)


def _stands_still(bests: Sequence[float], strategy: Any) -> bool:
    longest_axis = strategy.sigma * strategy.diagD[-1]
    flat = len(bests) == _window(strategy.dim, strategy.lambda_) and min(bests) == max(bests)
    return bool(flat or longest_axis < SMALLEST_STEP)


def _strategy(state: State, parents: int | None = None) -> Any:
    """Rebuild DEAP's strategy, with mu = lambda / 2 or `parents` if that is less."""
    mu = state["population"] // 2
    strategy = cma.Strategy(
        centroid=state["centroid"],
        sigma=state["sigma"],
        lambda_=state["population"],
        mu=mu if parents is None else min(mu, parents),
        cmatrix=np.array(state["C"]),
    )
    strategy.pc = np.array(state["pc"])
    strategy.ps = np.array(state["ps"])
    strategy.update_count = state["update_count"]
    return strategy


def _draw(strategy: Any, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    # x = m + sigma B D z, as in DEAP's `generate`, which draws from numpy's global state.
    z = rng.standard_normal((count, strategy.dim))
    x: NDArray[np.float64] = strategy.centroid + strategy.sigma * (z @ strategy.BD.T)
    return x


def _pulled_in(strategy: Any, candidate: Individual) -> Individual:
    """Shorten the step to a genome that the distribution did not sample.

    Endpoints sit in the corners of the box, far outside the distribution; taken as they are they
    would blow up sigma and C. Their Mahalanobis length is limited to c_y = sqrt(n) + 2n / (n + 2)
    (Hansen 2011, "Injecting external solutions into CMA-ES", arXiv:1110.4181).
    """
    n = strategy.dim
    y = (np.array(candidate) - strategy.centroid) / strategy.sigma
    length = np.linalg.norm((strategy.B.T @ y) / strategy.diagD)
    c_y = np.sqrt(n) + 2 * n / (n + 2)
    if length <= c_y:
        return candidate
    x = strategy.centroid + strategy.sigma * (c_y / length) * y
    return Individual(x.tolist(), candidate.fitness.values)


def _well_conditioned(C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raise eigenvalues below the largest / 1e14, where rounding could turn them negative."""
    eigenvalues, B = np.linalg.eigh(C)
    floor = eigenvalues[-1] / LARGEST_CONDITION
    if eigenvalues[0] >= floor:
        return C
    raised: NDArray[np.float64] = (B * np.maximum(eigenvalues, floor)) @ B.T
    return raised
