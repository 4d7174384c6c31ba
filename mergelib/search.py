"""What a search file may say: one pydantic model, shared by the YAML file and the flow's parameter.

Relative paths in a search file are read from the file's own folder. What can be checked without
opening a checkpoint or a benchmark is checked here; the rest in `mergelib.checkpoints` and
`mergelib.benchmarks.items`, also before any work.
"""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from mergelib.errors import InputError
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.faults import one_line_each
from mergelib.irt.selection import RANDOM_SELECTIONS
from mergelib.merging.methods import check_models, takes_base
from mergelib.sections.compute import Compute
from mergelib.sections.evolution import Evolution
from mergelib.sections.fields import Section
from mergelib.sections.fitness import Fitness
from mergelib.sections.merge import Merge
from mergelib.sections.objectives import Constraint, Objective

MANY_CANDIDATES = 200
"""From so many on, `fitness.renew: auto` asks each generation other items."""


class Search(Section):
    """A whole search: models, space, objectives, budget."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Also the run folder's name"
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Another seed is another search; the same gives the same"
    )
    base: str | None = Field(
        None, description="The model that the endpoints were fine-tuned from; most methods need it"
    )
    endpoints: tuple[str, ...] = Field(min_length=2, description="The models to merge")
    merge: Merge = Field(description="The space of recipes: the method and its parameters")
    objectives: tuple[Objective, ...] = Field(
        min_length=1, description="One: the best model is sought; several: a front, or by weights"
    )
    constraints: tuple[Constraint, ...] = Field(
        (), description="Benchmarks on which a merge must not be worse than a limit"
    )
    fitness: Fitness = Field(
        Fitness(), description="How candidates are judged: on how many items, by which estimator"
    )
    evolution: Evolution = Field(
        Evolution(), description="How recipes are varied, how many of them, and until when"
    )
    finalists: int = Field(
        5,
        ge=1,
        description="Candidates that answer the fresh items at the end: the better half of twice "
        "as many on a quarter of the deciding items; of several objectives' all answer these, and "
        "the better half goes on",
    )
    deciding_items: int = Field(
        200,
        ge=1,
        description="Further items of the search pool that decide between finalists, for one best "
        "model in three rounds of fewer and fewer of them",
    )
    compute: Compute = Field(Compute(), description="Where and how models are merged and answer")
    allow_test_sets: bool = Field(
        False,
        description="Search on public test data; the report and the model card then say so",
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the models; only if you trust it"
    )

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if twice := _named_twice(self.endpoints):
            raise ValueError(f"endpoints: {twice} is named twice; each may be named once")
        for key, asked in (("objectives", self.objectives), ("constraints", self.constraints)):
            measured = [choice.measured_by for choice in asked]
            for number, choice in enumerate(asked):
                if choice.measured_by in measured[:number]:
                    raise ValueError(
                        f"{key}: {choice.reference} is named twice; give one of them another "
                        "metric, filter or scorer"
                    )
        weighted = sum(objective.weight is not None for objective in self.objectives)
        if 0 < weighted < len(self.objectives):
            raise ValueError(
                f"objectives: {weighted} of {len(self.objectives)} have a weight; give one to each "
                "for their weighted mean, or to none for a front"
            )
        if self.base is None and any(c.below_base is not None for c in self.constraints):
            raise ValueError("constraints: below_base needs a base; name it, or give at_least")
        self._check_algorithm()
        self._check_renewal()
        if self.compute.dtype not in ("auto", "float32", self.merge.export_dtype):
            raise ValueError(
                f"compute.dtype: {self.compute.dtype} would round the exported "
                f"{self.merge.export_dtype} weights, and not they would be scored; allowed: auto, "
                f"float32, {self.merge.export_dtype}"
            )
        for method in self.merge.methods:
            # Layers are taken from any number of endpoints, a slice from one of them.
            merged = len(self.endpoints) if self.merge.path is None else 1
            check_models(method, merged, has_base=self.base is not None)
            if takes_base(method) and self.base in self.endpoints:
                raise ValueError(
                    f"endpoints: {self.base} is the base, from which {method} takes "
                    "differences; name models that were fine-tuned from it"
                )
        return self

    def _check_algorithm(self) -> None:
        name, algorithm = self.evolution.algorithm, ALGORITHMS[self.evolution.algorithm]
        if self.front and not algorithm.several_objectives:
            fitting = [other for other, a in ALGORITHMS.items() if a.several_objectives]
            raise ValueError(
                f"evolution.algorithm: {name!r} takes one objective and the file has "
                f"{len(self.objectives)}; give each a weight, or for a front choose "
                f"{', '.join(sorted(fitting))}"
            )

        evolution = self.evolution
        if evolution.population < algorithm.smallest_population:
            raise ValueError(
                f"evolution.population: {evolution.population} is too small for {name!r}; give at "
                f"least {algorithm.smallest_population}"
            )
        if algorithm.traits == "responses" and self.constraints:
            raise ValueError(
                f"constraints: {name!r} goes by single items, of which no limit can be held; "
                "choose another evolution.algorithm"
            )
        weighing = self.fitness.estimator in ("weighted", "gp_irt", "gmp_irt")
        if self.fitness.race and self.fitness.selection == "clustered" and weighing:
            raise ValueError(
                "fitness.racing: the weights of clustered items hold for all of them together, and "
                f"{self.fitness.estimator} goes by them; choose another selection or estimator"
            )
        if evolution.descriptors == "scores" and len(self.objectives) + len(self.constraints) < 2:
            raise ValueError(
                "evolution.descriptors: scores needs two benchmarks and the file has one; allowed: "
                "auto, parents"
            )

    def _check_renewal(self) -> None:
        if self.fitness.renew == "auto" or not self.fitness.renew:
            return
        why = self._same_items_throughout
        if why is not None:
            raise ValueError(f"fitness.renew: {self.fitness.renew}, but {why}; give renew: 0")

    @property
    def _same_items_throughout(self) -> str | None:
        """Why all candidates have to be asked the same items; None if they need not."""
        fitness = self.fitness
        if self.ranks_racers:
            return "a race holds its best to the incumbent on the items that both have answered"
        if fitness.selection not in RANDOM_SELECTIONS:
            return f"fitness.selection: {fitness.selection} chooses the same items each time"
        if ALGORITHMS[self.evolution.algorithm].traits == "responses":
            return f"{self.evolution.algorithm} compares candidates item by item"
        return None

    @property
    def renewal(self) -> int:
        """After how many generations other anchor items are asked; 0 for never."""
        if self.fitness.estimator == "full":
            return 0
        if self.fitness.renew != "auto":
            return self.fitness.renew
        evolution = self.evolution
        many = evolution.population * evolution.generations >= MANY_CANDIDATES
        one_ability = self.fitness.calibration.dimensions == 1
        racing = self.fitness.race is not None and self.learns_items and one_ability
        able = ALGORITHMS[evolution.algorithm].smooths and self._same_items_throughout is None
        return int((many or racing) and able)

    @property
    def learns_items(self) -> bool:
        """Whether candidates' answers may calibrate the items, if not all answer the same ones."""
        fitness = self.fitness
        own = fitness.estimator == "parent_irt" and fitness.calibration.source == "self"
        return own and ALGORITHMS[self.evolution.algorithm].smooths

    @property
    def ranks_racers(self) -> bool:
        """Whether a race decides by ranks: the dropped are behind, the best meets the incumbent.

        An algorithm that smooths takes a dropped candidate's score for one of few answers instead.
        """
        return self.fitness.race is not None and not ALGORITHMS[self.evolution.algorithm].smooths

    def settled(self, begun: "Search | None" = None) -> "Search":
        """With `fitness.renew` a number, which stays what it is when generations are added.

        Args:
            begun: the search as it was begun; None if it is not.
        """
        if self.fitness.renew != "auto":
            return self
        renew = (begun or self).renewal
        return self.model_copy(update={"fitness": self.fitness.model_copy(update={"renew": renew})})

    @property
    def front(self) -> bool:
        """Whether the best trade-offs of several objectives are sought, and not one best model."""
        return len(self.objectives) > 1 and self.objectives[0].weight is None


def _named_twice(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def parse_search(document: Any, where: str) -> Search:
    """Check a search file's content; see `mergelib.search_file.load_search`.

    Args:
        document: the parsed YAML.
        where: the file's name, put before each fault.

    Raises:
        InputError: one line for each fault.
    """
    try:
        return Search.model_validate(document)
    except ValidationError as error:
        lines = [f"{where}: {line}" for line in one_line_each(error.errors(), Search)]
        raise InputError("\n".join(dict.fromkeys(lines))) from error
