"""Estimates smoothed over the genomes: what a candidate's neighbours say of its luck.

Of many candidates on few items those with the highest estimates are the lucky ones. A Gaussian
process tells luck from worth as far as recipes that are close to one another are about as good, and
with noisy values the candidate with its highest mean is what to take (Frazier 2018,
arXiv:1807.02811, section 4).
"""

import numpy as np
from threadpoolctl import threadpool_limits

from mergelib.evolution.gaussian_process import FloatArray, fit
from mergelib.racing import ranks

FITTED = 1000
"""Candidates that a process is fitted to at most: half of them the best, half the newest."""


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
    if not scored.size:
        return means
    x, y, n = genomes[scored], fitness[scored], answers[scored]
    rows = np.arange(len(x))
    if len(x) > FITTED:
        best = ranks(y)[: FITTED // 2]
        rows = np.union1d(best, rows[-FITTED // 2 :])
    # Threads of BLAS would round otherwise on another machine, and save nothing here.
    with threadpool_limits(1, user_api="blas"):
        processes = [fit(x[rows], column, n[rows]) for column in y[rows].T]
        means[scored] = np.stack([process.at(x).mean for process in processes], axis=1)
    return means
