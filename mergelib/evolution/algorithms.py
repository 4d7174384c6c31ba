"""The shape that every algorithm has, and the registry of those that a search file can name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mergelib.evolution import (
    bayesian,
    cma_es,
    differential_evolution,
    genetic,
    map_elites,
    mo_cma_es,
    natural_niches,
    nsga2,
    nsga3,
    one_plus_lambda,
    particle_swarm,
    random_search,
    sobol,
    spea2,
)
from mergelib.evolution.population import Genome, State

Traits = Literal["responses", "descriptors", "answers"]


@dataclass(frozen=True)
class Algorithm:
    """Three pure functions over a state that is plain JSON.

    The state handed in is never changed. It survives `json.dumps(state, allow_nan=False)` and back
    any number of times, and what is asked of it then is the same to the bit.

    Attributes:
        name: the key in `ALGORITHMS`.
        several_objectives: whether k > 1 objectives are allowed.
        start: (dimension d, population, seed, first) -> the state at generation 0. The genomes of
            `first` go into the first population, up to its size, and the rest is space-filling.
        choose: what `ask` calls, on a state that may have `pending` genomes.
        update: what `tell` calls; it takes traits only where the algorithm does.
        smallest_population: fewest genomes in a generation; `start` refuses fewer.
        traits: what the algorithm can use beside the fitness: "responses" (n, m) to m items, 1 or
            0 or between, NaN where an item was not scored; "descriptors" (n, 2) in [0, 1], NaN
            where unknown; "answers" (n, 1), above 0, how many each fitness rests on; None for
            nothing. It does without, but then those two have lost their point, and to the last all
            scores are equally noisy.
        asynchronous: whether it can be asked for a generation before it has been told the last.
        smooths: whether candidates of two generations may have been asked different items: it
            learns from estimates as noise allows, or not at all, and keeps none for being lucky.
    """

    name: str
    several_objectives: bool
    start: Callable[[int, int, int, Sequence[Genome]], State]
    choose: Callable[[State], list[Genome]]
    update: Callable[..., State]
    smallest_population: int = 2
    traits: Traits | None = None
    asynchronous: bool = False
    smooths: bool = False

    def ask(self, state: State, pending: Sequence[Sequence[Genome]] = ()) -> list[Genome]:
        """Give the next genomes; the same ones each time it is asked.

        Args:
            state: where the search has been told to.
            pending: the generations that were asked since and have not been told yet, oldest
                first. What is asked then depends on them and on the state, and so on nobody's
                pace. None unless the algorithm is asynchronous.

        Returns:
            `population` genomes in [0, 1]^d.

        Raises:
            ValueError: something is pending, and the algorithm is not asynchronous.
        """
        if not pending:
            return self.choose(state)
        if not self.asynchronous:
            raise ValueError(f"{self.name} cannot be asked before it has been told")
        number = state["generation"] + len(pending)
        asked = [genome for generation in pending for genome in generation]
        return self.choose({**state, "generation": number, "pending": asked})

    def tell(
        self,
        state: State,
        genomes: Sequence[Genome],
        fitness: NDArray[np.float64],
        traits: NDArray[np.float64] | None = None,
    ) -> State:
        """Give the next generation's state.

        Args:
            state: the state that the genomes were asked of.
            genomes: n genomes; n need not be the population, nor need they have been asked.
            fitness: (n, k), maximised. A row with NaN or an infinity is a failed candidate: it is
                as if it had not been told, so that a generation with nothing else moves only the
                random numbers on. A genome that is told again has its newer fitness from then on.
            traits: as the attribute `traits` says; ignored where that is None.

        Returns:
            The state of the next generation.

        Raises:
            InputError: more objectives than the algorithm takes.
            ValueError: shapes disagree, or something is not in [0, 1].
        """
        if self.traits is None:
            return self.update(state, genomes, fitness)
        return self.update(state, genomes, fitness, traits)


ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm(
            "bayesian",
            True,
            bayesian.start,
            bayesian.ask,
            bayesian.tell,
            traits="answers",
            asynchronous=True,
            smooths=True,
        ),
        Algorithm("cma_es", False, cma_es.start, cma_es.ask, cma_es.tell),
        Algorithm(
            "de",
            False,
            differential_evolution.start,
            differential_evolution.ask,
            differential_evolution.tell,
            smallest_population=differential_evolution.SMALLEST,
        ),
        Algorithm("ga", False, genetic.start, genetic.ask, genetic.tell, asynchronous=True),
        Algorithm(
            "map_elites",
            False,
            map_elites.start,
            map_elites.ask,
            map_elites.tell,
            traits="descriptors",
            asynchronous=True,
        ),
        Algorithm("mo_cma_es", True, mo_cma_es.start, mo_cma_es.ask, mo_cma_es.tell),
        Algorithm(
            "natural_niches",
            False,
            natural_niches.start,
            natural_niches.ask,
            natural_niches.tell,
            traits="responses",
            asynchronous=True,
        ),
        Algorithm("nsga2", True, nsga2.start, nsga2.ask, nsga2.tell, asynchronous=True),
        Algorithm("nsga3", True, nsga3.start, nsga3.ask, nsga3.tell, asynchronous=True),
        Algorithm(
            "one_plus_lambda_cma_es",
            False,
            one_plus_lambda.start,
            one_plus_lambda.ask,
            one_plus_lambda.tell,
            smallest_population=one_plus_lambda.SMALLEST,
        ),
        Algorithm("pso", False, particle_swarm.start, particle_swarm.ask, particle_swarm.tell),
        Algorithm(
            "random",
            True,
            random_search.start,
            random_search.ask,
            random_search.tell,
            smallest_population=1,
            asynchronous=True,
            smooths=True,
        ),
        Algorithm(
            "sobol",
            True,
            sobol.start,
            sobol.ask,
            sobol.tell,
            smallest_population=1,
            asynchronous=True,
            smooths=True,
        ),
        Algorithm("spea2", True, spea2.start, spea2.ask, spea2.tell, asynchronous=True),
    )
}
