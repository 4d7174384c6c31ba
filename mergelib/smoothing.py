"""Estimates smoothed over the genomes: what a candidate's neighbours say of its luck.

Of many candidates on few items those with the highest estimates are the lucky ones. A Gaussian
process tells luck from worth as far as recipes that are close to one another are about as good, and
with noisy values the candidate with its highest mean is what to take (Frazier 2018,
arXiv:1807.02811, section 4). Where several may be looked at closer, those with the highest means
are the wrong ones: they are neighbours, and as good as one another.
"""

import numpy as np
from threadpoolctl import threadpool_limits

from mergelib.evolution.gaussian_process import FloatArray, Process, fit
from mergelib.evolution.randomness import generator
from mergelib.racing import ranks

FITTED = 1000
"""Candidates that a process is fitted to at most: half of them the best, half the newest."""

DRAWN = 1000
"""Candidates of the highest means that are considered for a closer look."""

DRAWS = 4000
"""Joint draws that an expected maximum is the mean of."""


def smoothed(genomes: FloatArray, fitness: FloatArray, answers: FloatArray) -> FloatArray:
    """The mean of a Gaussian process of each objective, at the candidates themselves.

    Args:
        genomes: (n, d) in [0, 1], oldest first.
        fitness: (n, k), maximised; a row with NaN is a failed candidate.
        answers: (n,), on how many each fitness rests; above 0 where it is scored.

    Returns:
        (n, k), NaN where failed.
    """
    scored = np.flatnonzero(np.isfinite(fitness).all(axis=1))
    means = np.full_like(fitness, np.nan)
    if scored.size:
        x = genomes[scored]
        # Threads of BLAS would round otherwise on another machine, and save nothing here.
        with threadpool_limits(1, user_api="blas"):
            processes = _fitted(x, fitness[scored], answers[scored])
            means[scored] = np.stack([process.at(x).mean for process in processes], axis=1)
    return means


def worth_a_look(
    genomes: FloatArray, fitness: FloatArray, answers: FloatArray, count: int
) -> list[int]:
    """Candidates of which the best is expected to be as good as can be.

    First the one with the highest mean, and then, one after another, whoever raises the expected
    maximum of those chosen the most (the q-EI of Ginsbourger, Le Riche and Carraro 2010, "Kriging
    is well-suited to parallelize optimization", maximised greedily, by joint draws). So neighbours
    of the first, whose worth is hardly another, give way to what may be better than it.

    Args:
        genomes: (n, d) in [0, 1], oldest first, each once.
        fitness: (n, 1), maximised; NaN is a failed candidate.
        answers: (n,), on how many each fitness rests; above 0 where it is scored.
        count: how many at most.

    Returns:
        Row numbers in the order of choice.
    """
    # The newest first: the first of equal means is taken.
    scored = np.flatnonzero(np.isfinite(fitness[:, 0]))[::-1]
    if not scored.size:
        return []
    with threadpool_limits(1, user_api="blas"):
        (process,) = _fitted(*(part[scored][::-1] for part in (genomes, fitness, answers)))
        mean = process.at(genomes[scored]).mean
        scored = scored[np.sort(np.argsort(-mean, kind="stable")[:DRAWN])]
        posterior = process.at(genomes[scored])
        worth = posterior.mean[:, None]
        if count > 1:
            worth = posterior.draws(DRAWS, generator(0, 0, "worth a look"))
    chosen = [int(np.argmax(posterior.mean))]
    best = worth[chosen[0]]
    while len(chosen) < min(count, len(scored)):
        gain = np.maximum(worth - best, 0.0).mean(axis=1)
        gain[chosen] = -1.0
        # Where nobody may be better any more, the highest mean.
        chosen.append(int(np.lexsort((-posterior.mean, -gain))[0]))
        best = np.maximum(best, worth[chosen[-1]])
    rows: list[int] = scored[chosen].tolist()
    return rows


def _fitted(x: FloatArray, y: FloatArray, answers: FloatArray) -> list[Process]:
    """A process of each objective, fitted to scored candidates, oldest first."""
    rows = np.arange(len(x))
    if len(x) > FITTED:
        best = ranks(y)[: FITTED // 2]
        rows = np.union1d(best, rows[-FITTED // 2 :])
    return [fit(x[rows], column, answers[rows]) for column in y[rows].T]
