"""Bayesian optimisation: a Gaussian process smooths noisy scores and says where to ask next.

A generation is chosen from a pool of points, most of them near the best so far, by upper confidence
bounds: mean + kappa deviations (Srinivas et al. 2010), with kappa from 0 on in turn, and each
choice assumed to have been answered before the next is made (Desautels et al. 2014). Of several
objectives each has a process, and each choice maximises another random hypervolume scalarisation,
min over k of (bound_k - reference_k) / lambda_k with lambda uniform on the positive unit sphere,
whose expectation is the hypervolume (Zhang and Golovin 2020, arXiv:2006.04655). For one objective
that is the bound itself.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from mergelib.errors import InputError
from mergelib.evolution.front import non_dominated
from mergelib.evolution.gaussian_process import FloatArray, Process, fit
from mergelib.evolution.population import Genome, State, begin, design, scored
from mergelib.evolution.randomness import generator

REMEMBERED = (400, 100)
"""Candidates that the process is fitted to: the newest, and as many of the best before them.

The second number is for populations above `SMALL`, whose generations outnumber what a fit to many
adds: it takes time with the cube of their number.
"""

SMALL = 16
"""The largest population for which time goes into candidates rather than into asking for them."""

POOL = 1024
"""Points that a generation is chosen from; four for each place in it, if that is more."""

ANYWHERE = 0.25
"""Share of the pool that is drawn from the whole box."""

STEPS = (0.05, 0.1, 0.2)
"""Standard deviations around the leaders, of which the rest of the pool is drawn.

A gene's are these times the root of its length over the geometric mean of all: what matters little
has to be tried far away to be told apart.
"""

LEADERS = 5
"""By their scores, and as many by what the process makes of these; more if a front is larger."""

KAPPAS = (0.0, 0.67, 1.33, 2.0)
"""Deviations above the mean: by turns from the best known to the least known."""


def start(dimension: int, population: int, seed: int, first: Sequence[Genome]) -> State:
    """Start a search of [0, 1]^d; see `mergelib.evolution.algorithms.Algorithm`."""
    return {**begin("bayesian", dimension, population, seed, first), "told": []}


def ask(state: State) -> list[Genome]:
    """Choose the points with the highest bounds; a design as long as nothing has been scored.

    `pending` genomes, if the state has any, are assumed to have been answered too.

    Returns:
        `population` genomes.
    """
    if not state["told"]:
        return design(state)
    # For matrices so small a second thread of BLAS costs six times more than it saves.
    with _libraries().limit(limits=1, user_api="blas"):
        return _chosen(state)


def _chosen(state: State) -> list[Genome]:
    x = np.array([one["genome"] for one in state["told"]])
    y = np.array([one["fitness"] for one in state["told"]])
    rng = generator(state["seed"], state["generation"], "bayesian")
    if any("answers" not in one for one in state["told"]):
        raise InputError(
            "the search was begun by an earlier version of mergeflow, which this one cannot go on "
            "with; give it another name, or another --store"
        )
    answers = np.array([one["answers"] for one in state["told"]])
    processes = [fit(x, column, answers) for column in y.T]
    pending = np.array(state.get("pending", [])).reshape(-1, x.shape[1])
    leaders = _leaders(processes, y, answers)
    points = _pool(processes, leaders, rng, max(POOL, 4 * state["population"]))
    pool = np.concatenate([pending, points])
    posteriors = [process.at(pool) for process in processes]
    reference = _reference(y[~_few(answers)])
    free = np.ones(len(pool), dtype=np.bool_)

    def take(row: int) -> None:
        # Clipped to the box, several points of the pool may be one.
        nonlocal free, posteriors
        free &= (pool != pool[row]).any(axis=1)
        posteriors = [posterior.assuming(row) for posterior in posteriors]

    for row in range(len(pending)):
        take(row)
    chosen: list[Genome] = []
    done = state["generation"] * state["population"]
    for number in range(done, done + state["population"]):
        bounds = np.stack([p.mean + kappa(number) * p.deviation for p in posteriors], axis=1)
        direction = np.abs(rng.standard_normal(y.shape[1])) + 1e-9
        worth = scalarised(bounds, reference, direction / np.linalg.norm(direction))
        row = int(np.argmax(np.where(free, worth, -np.inf)))
        take(row)
        chosen.append(pool[row].tolist())
    return chosen


def tell(
    state: State,
    genomes: Sequence[Genome],
    fitness: NDArray[np.float64],
    traits: NDArray[np.float64] | None = None,
) -> State:
    """Remember the candidates: the newest, and of those before the best.

    Args:
        state: the state that the genomes were asked of.
        genomes: n genomes.
        fitness: (n, k), maximised; NaN is a failed candidate, which is not remembered.
        traits: (n, 1), on how many answers each fitness rests; None for one each.

    Returns:
        The state of the next generation.
    """
    candidates = scored(state, genomes, fitness, objectives=None)
    answers = _answers_of(fitness, traits)
    told = {tuple(one["genome"]): one for one in state["told"]}
    for candidate, count in zip(candidates, answers, strict=True):
        told.pop(tuple(candidate), None)
        values = list(candidate.fitness.values)
        told[tuple(candidate)] = {"genome": list(candidate), "fitness": values, "answers": count}
    kept = list(told.values())
    half = remembered(state["population"]) // 2
    if len(kept) > 2 * half:
        older, newest = kept[:-half], kept[-half:]
        y, rest_on = (np.array([one[n] for one in older]) for n in ("fitness", "answers"))
        best = set(_leading(y, rest_on)[:half])
        kept = [one for row, one in enumerate(older) if row in best] + newest
    return {**state, "generation": state["generation"] + 1, "told": kept}


def _answers_of(fitness: NDArray[np.float64], traits: NDArray[np.float64] | None) -> list[float]:
    """On how many answers the scored candidates' fitness rests."""
    if traits is None:
        traits = np.ones((len(fitness), 1))
    answers = np.asarray(traits, dtype=np.float64)
    if answers.shape != (len(fitness), 1):
        raise ValueError(f"traits of shape {answers.shape}, not ({len(fitness)}, 1)")
    counts: list[float] = answers[np.isfinite(fitness).all(axis=1), 0].tolist()
    if not all(0 < count < np.inf for count in counts):
        raise ValueError("traits: a scored candidate's number of answers is not above 0")
    return counts


@cache
def _libraries() -> ThreadpoolController:
    """The libraries with threads of their own that are loaded; looking for them takes a while."""
    return ThreadpoolController()


def remembered(population: int) -> int:
    """How many candidates the process is fitted to at most."""
    return REMEMBERED[0] if population <= SMALL else REMEMBERED[1]


def kappa(number: int) -> float:
    """How many deviations count for the candidate of that number, over all generations."""
    return KAPPAS[number % len(KAPPAS)]


def scalarised(y: FloatArray, reference: FloatArray, direction: FloatArray) -> FloatArray:
    """Zhang and Golovin's scalarisation, without its power, which changes no order.

    Args:
        y: (..., k), maximised.
        reference: (k,), the worst of interest.
        direction: (..., k), of length 1 and positive.

    Returns:
        (...), below 0 where y is worse than the reference.
    """
    worth: FloatArray = ((y - reference) / direction).min(axis=-1)
    return worth


def _few(answers: FloatArray) -> NDArray[np.bool_]:
    """Whose scores rest on so few answers that the highest of them are luck, (n,)."""
    few: NDArray[np.bool_] = answers < np.median(answers)
    return few


def _leading(y: FloatArray, answers: FloatArray) -> list[int]:
    """All rows, (n, k), by how many dominate them and then by their mean; of few answers last."""
    dominated = (y[None] >= y[:, None]).all(axis=2) & (y[None] > y[:, None]).any(axis=2)
    keys = (-y.mean(axis=1), dominated.sum(axis=1), _few(answers))
    order: list[int] = np.lexsort(keys).tolist()
    return order


def _leaders(processes: Sequence[Process], y: FloatArray, answers: FloatArray) -> FloatArray:
    """The best genomes by their scores, and by what the processes make of these."""
    x = processes[0].x
    smooth = np.stack([process.at(x).mean for process in processes], axis=1)

    def best(values: FloatArray, of: FloatArray) -> list[int]:
        many = values[~_few(of)]
        return _leading(values, of)[: max(LEADERS, int(non_dominated(many).sum()))]

    leaders: FloatArray = x[[*best(y, answers), *best(smooth, np.ones(len(x)))]]
    return leaders


def _pool(
    processes: Sequence[Process], leaders: FloatArray, rng: np.random.Generator, count: int
) -> FloatArray:
    """Points to choose from, (count, d): some anywhere, the others around leaders."""
    anywhere = int(count * ANYWHERE)
    near = leaders[rng.integers(len(leaders), size=count - anywhere)]
    logs = np.mean([np.log(process.lengths) for process in processes], axis=0)
    steps = rng.choice(STEPS, size=(len(near), 1)) * np.exp((logs - logs.mean()) / 2)
    near = np.clip(near + steps * rng.standard_normal(near.shape), 0.0, 1.0)
    return np.concatenate([rng.random((anywhere, leaders.shape[1])), near])


def _reference(y: FloatArray) -> FloatArray:
    """A point a tenth of the front's range below the worst of the front, (k,)."""
    front = y[non_dominated(y)]
    low, high = front.min(axis=0), front.max(axis=0)
    below: FloatArray = low - 0.1 * (high - low) - 1e-9
    return below
