"""(1 + lambda)-CMA-ES with active update, on DEAP's `StrategyActiveOnePlusLambda`.

One parent, lambda = the population (Igel, Hansen and Roth 2007). The step size follows the share of
children that are no worse than the parent; the covariance grows along successful steps and shrinks
along the step of a best child that is worse than the parent's fifth ancestor (Arnold and Hansen
2010). DEAP's own list of ancestors keeps the first five for ever; here it keeps the last five.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from deap import cma
from numpy.typing import NDArray

from mergelib.evolution.population import (
    Fitness,
    Genome,
    Individual,
    State,
    begin,
    design,
    scored,
)
from mergelib.evolution.randomness import generator

SMALLEST = 1
FIRST_SIGMA = 1 / 6
SIGMA_RANGE = (1e-12, 1.0)
LARGEST_CONDITION = 1e7
"""Of A; its square is that of the covariance."""

SMALLEST_STEP = 1e-9
"""Of the longest axis; below it the steps start anew, so that the parent is not asked for ever."""

ANCESTORS = 5
RESAMPLES = 20


class _Child(Individual):
    """With the step that led to it, y = A z, as DEAP's strategy expects."""

    _y: NDArray[np.float64]
    _z: NDArray[np.float64]


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`.

    There is no parent yet: it will be the best of the first population.
    """
    state = begin("one_plus_lambda_cma_es", dimension, population, seed, first, smallest=SMALLEST)
    known: State = {"parent": None, "fitness": None, "ancestors": []}
    return {**state, **known, **_first_steps(dimension, population)}


def ask(state: State) -> list[Genome]:
    """Sample around the parent; a point outside the box is drawn again, then clipped.

    Returns:
        `population` genomes; a space-filling design as long as no candidate has been scored.
    """
    if state["parent"] is None:
        return design(state)
    rng = generator(state["seed"], state["generation"], "one_plus_lambda")
    parent, step = np.array(state["parent"]), state["sigma"] * np.array(state["A"])

    def draw(count: int) -> NDArray[np.float64]:
        x: NDArray[np.float64] = parent + rng.standard_normal((count, len(parent))) @ step.T
        return x

    x = draw(state["population"])
    for _ in range(RESAMPLES):
        outside = np.flatnonzero(((x < 0.0) | (x > 1.0)).any(axis=1))
        if outside.size == 0:
            break
        x[outside] = draw(outside.size)
    genomes: list[Genome] = np.clip(x, 0.0, 1.0).tolist()
    return genomes


def tell(state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64]) -> State:
    """Move to the best child if it is no worse than the parent, and adapt the steps.

    Steps that have collapsed start anew, around the parent, which stays.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes; the parent among them has its newer fitness from now on.
        fitness: (n, 1), maximised; NaN is a failed candidate, which counts neither as a success
            nor as a failure.

    Returns:
        The state of the next generation.

    Raises:
        InputError: more than one objective.
    """
    candidates = scored(state, genomes, fitness, objectives=1)
    state = {**state, "generation": state["generation"] + 1}
    if state["parent"] is None and candidates:
        best = max(candidates, key=lambda one: one.fitness.values)
        values = list(best.fitness.values)
        return {**state, "parent": list(best), "fitness": values, "ancestors": [values]}
    for candidate in candidates:
        if list(candidate) == state["parent"]:
            state = {**state, "fitness": list(candidate.fitness.values)}
    children = [one for one in candidates if list(one) != state["parent"]]
    if not children:
        return state
    strategy = _strategy(state)
    strategy.update([_with_step(strategy, one) for one in children])
    moved = list(strategy.parent) != state["parent"]
    values = list(strategy.parent.fitness.values)
    following = {
        **state,
        "parent": list(strategy.parent),
        "fitness": values,
        "ancestors": [*state["ancestors"], values][-ANCESTORS:] if moved else state["ancestors"],
    }
    if strategy.sigma * np.linalg.norm(strategy.A, 2) < SMALLEST_STEP:
        return {**following, **_first_steps(state["dimension"], state["population"])}
    return {
        **following,
        "sigma": float(np.clip(strategy.sigma, *SIGMA_RANGE)),
        "A": well_conditioned(strategy.A).tolist(),
        "pc": strategy.pc.tolist(),
        "psucc": float(strategy.psucc),
    }


def _first_steps(dimension: int, population: int) -> State:
    return {
        "sigma": FIRST_SIGMA,
        "A": np.identity(dimension).tolist(),
        "pc": [0.0] * dimension,
        "psucc": 1.0 / (5.0 + population**0.5 / 2.0),
    }


def _strategy(state: State) -> Any:
    parent = Individual(state["parent"], state["fitness"])
    strategy = cma.StrategyActiveOnePlusLambda(
        parent, state["sigma"], [0.0] * state["dimension"], lambda_=state["population"]
    )
    strategy.A = np.array(state["A"])
    strategy.invA = np.linalg.inv(strategy.A)
    strategy.pc = np.array(state["pc"])
    strategy.psucc = state["psucc"]
    strategy.ancestors_fitness = [Fitness(values) for values in state["ancestors"]]
    return strategy


def _with_step(strategy: Any, candidate: Individual) -> _Child:
    """Give a candidate the step from the parent to it, as drawn again, clipped or brought along.

    As in `mergelib.evolution.cma_es`, a step that the distribution would hardly have drawn is
    shortened to sqrt(d) + 2d / (d + 2) before it is learnt from; the child stays where it is.
    """
    child = _Child(candidate, candidate.fitness.values)
    d = strategy.dim
    y = (np.array(candidate) - np.array(strategy.parent)) / strategy.sigma
    z = strategy.invA @ y
    limit = np.sqrt(d) + 2 * d / (d + 2)
    shorter = limit / max(limit, np.linalg.norm(z))
    child._y, child._z = shorter * y, shorter * z
    return child


def well_conditioned(A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Raise singular values of a factor below the largest / 1e7, past which it has no inverse."""
    U, S, V = np.linalg.svd(A)
    floor = S[0] / LARGEST_CONDITION
    if S[-1] >= floor:
        return A
    raised: NDArray[np.float64] = (U * np.maximum(S, floor)) @ V
    return raised
