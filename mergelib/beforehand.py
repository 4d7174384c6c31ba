"""What preparing a search has found out about recipes that no generation has asked for."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mergelib.calibration import calibration_plan
from mergelib.fitness import Judge
from mergelib.genes import Genome
from mergelib.runs import Run


class Beforehand(NamedTuple):
    """Merges that were answered before the first generation.

    Attributes:
        genomes: n genomes.
        fitness: (n, k), maximised; NaN where failed.
        doubts: (n, 1), see `Judge.doubts`.
    """

    genomes: list[Genome]
    fitness: NDArray[np.float64]
    doubts: NDArray[np.float64]


def beforehand(run: Run, judge: Judge) -> Beforehand:
    """The calibration's merges and the uniform ones, which were answered for other ends.

    The endpoints are left out: not every space has a genome for them.

    Args:
        run: the run; it is prepared.
        judge: its judge.
    """
    bench = run.workbench()
    plan = [(recipe, bench.model_digest(recipe.to_yaml())) for recipe, _ in calibration_plan(bench)]
    responses = run.table("responses/prepare.parquet")
    models = [model for _, model in plan]
    of_model = responses["model"].to_pylist()
    uniform = run.table("uniform.parquet")
    fitness = judge.fitness(responses, models, beyond_anchors=True)
    items = [*(of_model.count(model) for model in models), *uniform["items"].to_pylist()]
    return Beforehand(
        genomes=[bench.space.encode(recipe) for recipe, _ in plan] + uniform["genome"].to_pylist(),
        fitness=np.concatenate([fitness, judge.told(uniform)]),
        doubts=judge.doubts(items),
    )
