"""What the algorithms share: genomes, the state's common part, first populations, failed rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from deap import base
from numpy.typing import NDArray
from scipy.stats import qmc

from mergelib.errors import InputError
from mergelib.evolution.randomness import generator

Genome = list[float]
"""d numbers in [0, 1]."""

State = dict[str, Any]
"""JSON through and through: str, int, finite float, None, and lists and dicts of them."""


class Fitness(base.Fitness):  # type: ignore[misc]  # DEAP is untyped
    """DEAP's fitness for any number of objectives, all maximised."""

    def __init__(self, values: Sequence[float] = ()) -> None:
        self.weights = (1.0,) * len(values)
        super().__init__(values)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Fitness":
        # DEAP's own copy would be without weights.
        return Fitness(self.values)


class Individual(list[float]):
    """A genome with its fitness, the shape that DEAP's operators expect."""

    def __init__(self, genome: Sequence[float], fitness: Sequence[float]) -> None:
        super().__init__(genome)
        self.fitness = Fitness(fitness)


def begin(
    algorithm: str,
    dimension: int,
    population: int,
    seed: int,
    first: Sequence[Genome],
    smallest: int = 2,
) -> State:
    """Check what every algorithm starts from and lay out the state's common part.

    Args:
        algorithm: the algorithm's name in the registry.
        dimension: d, the length of a genome.
        population: genomes in a generation.
        seed: the search's seed.
        first: genomes for the first population; those past `population` are dropped.
        smallest: fewest genomes in a generation that the algorithm works with.

    Returns:
        A state at generation 0.

    Raises:
        InputError: nothing to search (d is 0), or too small a population.
        ValueError: a genome of `first` has another length than d or leaves [0, 1].
    """
    if dimension < 1:
        raise InputError("nothing to search: every parameter is held fixed; give one a range")
    if population < smallest:
        raise InputError(
            f"population {population} is too small for {algorithm!r}; give at least {smallest}"
        )
    kept = [[float(gene) for gene in genome] for genome in first[:population]]
    _check(kept, dimension)
    return {
        "algorithm": algorithm,
        "dimension": dimension,
        "population": population,
        "seed": seed,
        "generation": 0,
        "first": kept,
    }


def first_of(state: State) -> list[Genome]:
    """Copy out the genomes that the caller put into this generation: none after generation 0."""
    return [list(genome) for genome in state["first"]] if state["generation"] == 0 else []


def design(state: State) -> list[Genome]:
    """Lay out a population with nothing to breed from.

    In generation 0 the genomes of `first` come first; the rest, and every later call (all
    candidates so far failed), is a Latin hypercube: each gene takes one value in each of n equal
    slices of [0, 1] (McKay, Beckman and Conover 1979).

    Args:
        state: a state with the common part laid out by `begin`.

    Returns:
        `population` genomes.
    """
    first = first_of(state)
    rng = generator(state["seed"], state["generation"], "design")
    points = qmc.LatinHypercube(state["dimension"], rng=rng)
    rest: list[Genome] = points.random(state["population"] - len(first)).tolist()
    return first + rest


def scored(
    state: State, genomes: Sequence[Genome], fitness: NDArray[np.float64], *, objectives: int | None
) -> list[Individual]:
    """Keep the candidates that were scored, in the order told.

    Args:
        state: the state that the genomes are told to.
        genomes: n genomes.
        fitness: (n, k), maximised; a row with NaN or an infinity is a failed candidate.
        objectives: the k that the algorithm takes, None for any.

    Returns:
        The scored candidates, at most n; empty when all failed.

    Raises:
        InputError: more objectives than the algorithm takes.
        ValueError: shapes disagree, or a genome has another length than d or leaves [0, 1].
    """
    rows = np.asarray(fitness, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(genomes):
        raise ValueError(f"{len(genomes)} genomes, but fitness of shape {rows.shape}")
    if objectives is not None and rows.shape[1] != objectives:
        raise InputError(
            f"{state['algorithm']!r} takes {objectives} objective, but {rows.shape[1]} are given; "
            "choose an algorithm for several objectives, or one benchmark"
        )
    _check(genomes, state["dimension"])
    return [
        Individual([float(gene) for gene in genome], row.tolist())
        for genome, row in zip(genomes, rows, strict=True)
        if np.isfinite(row).all()
    ]


def traits_of(
    genomes: Sequence[Genome],
    fitness: NDArray[np.float64],
    traits: NDArray[np.float64] | None,
    width: int | None = None,
) -> NDArray[np.float64]:
    """Keep the traits of the candidates that `scored` keeps.

    Args:
        genomes: n genomes.
        fitness: (n, k), as told to `scored`.
        traits: (n, m) in [0, 1], NaN where unknown; None for nothing known.
        width: the m that the algorithm takes, None for any.

    Returns:
        (scored candidates, m); (scored candidates, `width` or 0) of NaN without traits.

    Raises:
        ValueError: shapes disagree, or a trait of a scored candidate leaves [0, 1].
    """
    kept = np.isfinite(np.asarray(fitness, dtype=np.float64)).all(axis=1)
    if traits is None:
        return np.full((int(kept.sum()), width or 0), np.nan)
    rows = np.asarray(traits, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(genomes) or width not in (None, rows.shape[1]):
        wanted = "m" if width is None else width
        raise ValueError(f"traits of shape {rows.shape}, not ({len(genomes)}, {wanted})")
    rows = rows[kept]
    if ((rows < 0.0) | (rows > 1.0)).any():
        raise ValueError("a trait is not in [0, 1]")
    return rows


def places(asked: Sequence[Genome], told: Sequence[Genome]) -> list[int | None]:
    """Find which of the genomes asked each one told is.

    Args:
        asked: what `ask` gave; the same genome may be in it twice.
        told: the candidates that were scored.

    Returns:
        For each of `told` its place in `asked`, each place once and the lowest first; None for a
        genome that was not asked.
    """
    free: dict[tuple[float, ...], list[int]] = {}
    for place in range(len(asked) - 1, -1, -1):
        free.setdefault(tuple(asked[place]), []).append(place)
    return [left.pop() if (left := free.get(tuple(genome))) else None for genome in told]


def _check(genomes: Sequence[Genome], dimension: int) -> None:
    for genome in genomes:
        if len(genome) != dimension or not all(0.0 <= gene <= 1.0 for gene in genome):
            raise ValueError(f"not a genome in [0, 1]^{dimension}: {genome}")
