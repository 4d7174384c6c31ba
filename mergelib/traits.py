"""What algorithms are told of candidates beside their fitness."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mergelib.evolution.algorithms import Traits
from mergelib.fitness import Judge
from mergelib.goals import estimates_of
from mergelib.history import responses_of
from mergelib.runs import Run
from mergelib.tables import response_matrix


def traits_of(
    kind: Traits | None, run: Run, judge: Judge, table: pa.Table
) -> NDArray[np.float64] | None:
    """The traits of candidates.

    Args:
        kind: what the algorithm takes; None for nothing.
        run: the run.
        judge: its judge.
        table: of whole generations, all of them written.

    Returns:
        "responses": (candidates, items) to the anchor items of all objectives, an objective's
        times its weight over the largest weight; NaN where not scored. "descriptors":
        (candidates, 2) in [0, 1], by `evolution.descriptors` the estimates on the first two
        benchmarks or the distances to the first two endpoints; NaN where failed. "answers":
        (candidates, 1), how many items each was asked.
    """
    if kind is None:
        return None
    if kind == "answers":
        return np.array(table["items"].to_pylist(), dtype=np.float64)[:, None]
    if kind == "responses":
        responses = responses_of(run, sorted(set(table["generation"].to_pylist())))
        models = table["individual"].to_pylist()
        weights = judge.goals.weights or (1.0,)
        parts = [
            weight / max(weights) * response_matrix(responses, name, models, judge.anchors[name])
            for name, weight in zip(judge.goals.objectives, weights, strict=True)
        ]
        return np.hstack(parts)
    if by_scores(run.search.evolution.descriptors, len(judge.goals.names)):
        return estimates_of(table, judge.goals.names)[:, :2]
    return _distances(run, table)


def by_scores(descriptors: str, benchmarks: int) -> bool:
    """Whether models are told apart by their scores, and not by the distance to their parents."""
    return descriptors == "scores" or (descriptors == "auto" and benchmarks > 1)


def _distances(run: Run, table: pa.Table) -> NDArray[np.float64]:
    """Distances to the first two endpoints, of genomes, in units of the way between the two."""
    genomes = np.array(table["genome"].to_pylist(), dtype=np.float64)
    one, other = (np.array(corner) for corner in run.workbench().space.corners()[:2])
    way = float(np.linalg.norm(one - other)) or 1.0
    distances = [np.linalg.norm(genomes - end, axis=1) / way for end in (one, other)]
    clipped: NDArray[np.float64] = np.clip(np.stack(distances, axis=1), 0.0, 1.0)
    return clipped
