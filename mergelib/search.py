"""What a search file may say: one pydantic model, shared by the YAML file and the flow's parameter.

Relative paths in a search file are read from the file's own folder. What can be checked without
opening a checkpoint or a benchmark is checked here; the rest in `mergelib.checkpoints` and
`mergelib.benchmarks.items`, also before any work.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from mergelib.errors import InputError, unknown
from mergelib.estimators import ESTIMATORS
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.faults import one_line_each
from mergelib.irt.selection import SELECTIONS
from mergelib.merging.methods import (
    check_models,
    check_parameter,
    check_together,
    merge_methods,
    takes_base,
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _OneOf:
    """A string that must be a key of a registry; the form in Prefect's UI lists the keys."""

    def __init__(self, kind: str, registry: Callable[[], Iterable[str]]) -> None:
        self._kind, self._registry = kind, registry

    def _check(self, value: str) -> str:
        if value not in self._registry():
            raise ValueError(unknown(self._kind, value, self._registry()))
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": sorted(self._registry())}


MethodName = Annotated[str, _OneOf("a merge method", merge_methods)]
EstimatorName = Annotated[str, _OneOf("an estimator", ESTIMATORS.keys)]
SelectionName = Annotated[str, _OneOf("a way to select items", SELECTIONS.keys)]
AlgorithmName = Annotated[str, _OneOf("an algorithm", ALGORITHMS.keys)]


class Range(_Part):
    """A searched parameter: every value in [low, high] can be reached."""

    low: float = Field(description="Smallest value, inclusive")
    high: float = Field(description="Largest value, inclusive")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"low {self.low:g} and high {self.high:g} must be finite, low below high"
            )
        return self


def _range_or_value(value: Any) -> str | None:
    if isinstance(value, Range | dict):
        return "<range>"
    return "<value>" if isinstance(value, bool | int | float | str) else None


ParameterValue = Annotated[
    Annotated[Range, Tag("<range>")] | Annotated[bool | int | float | str, Tag("<value>")],
    Discriminator(
        _range_or_value,
        custom_error_type="parameter_value",
        custom_error_message="must be a range {low: ..., high: ...} or a value to hold fixed",
    ),
]


class Merge(_Part):
    """The space of recipes: the merge method and which of its parameters are searched."""

    method: MethodName = Field(description="Any method of the installed mergekit")
    layer_groups: int = Field(
        1, ge=1, description="Sets of parameters over the depth; 1 is one set for all layers"
    )
    components: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Separate sets by tensor name, such as self_attn and mlp"
    )
    smooth: bool = Field(False, description="Interpolate between the groups over the layers")
    parameters: dict[str, ParameterValue] = Field(
        min_length=1, description="A searched range {low, high}, or a value to hold fixed"
    )
    export_dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="Weights are rounded to this type before they are evaluated"
    )

    @model_validator(mode="after")
    def _parameters_fit_the_method(self) -> Self:
        ends = {
            name: (value.low, value.high) if isinstance(value, Range) else (value,)
            for name, value in self.parameters.items()
        }
        for name, values in ends.items():
            for value in values:
                check_parameter(self.method, name, value, searched=len(values) == 2)
        check_together(self.method, ends)
        if not any(isinstance(value, Range) for value in self.parameters.values()):
            raise ValueError(
                "merge.parameters: every parameter is held fixed, so there is nothing to search; "
                "give at least one as {low: ..., high: ...}"
            )
        return self


class Objective(_Part):
    """A benchmark to do well on, and which of its items may be used for what."""

    benchmark: str = Field(description="An lm-eval task: a YAML file, or a task's name")
    metric: str | None = Field(None, description="One of the task's metrics; its first by default")
    filter: str | None = Field(None, description="One of the task's filters; its first by default")
    search_items: int | None = Field(
        None, ge=2, description="At most so many items for the search; all by default"
    )
    fresh_items: int | None = Field(
        None, ge=2, description="At most so many items, unseen by the search, for the final scores"
    )


class Calibration(_Part):
    """Where the responses that calibrate the item bank come from."""

    source: str = Field(
        "self",
        min_length=1,
        description="self: random merges answer a share of the items; or a Parquet or CSV file of "
        "other models' responses, such as an earlier run's responses.parquet",
    )
    models: int = Field(12, ge=0, le=1000, description="How many random merges answer")
    share: float = Field(0.15, gt=0, le=1, description="The share of the items that each answers")
    overlap: float = Field(
        0.0, ge=0, le=1, description="How much of that share is the same items for all merges"
    )


class Fitness(_Part):
    """How a candidate is judged: which items it answers, and what they say of all items."""

    estimator: EstimatorName = "parent_irt"
    items: int = Field(30, ge=1, description="Anchor items that each candidate answers")
    selection: SelectionName = "systematic"
    calibration: Calibration = Calibration()


class Evolution(_Part):
    """How recipes are varied."""

    algorithm: AlgorithmName = "cma_es"
    population: int = Field(12, ge=2, description="Candidates in a generation")
    generations: int = Field(8, ge=1, description="May be raised later to extend a finished search")


AutoOrCount = Literal["auto"] | Annotated[int, Field(ge=1)]


class Compute(_Part):
    """Where and how models answer."""

    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of the arithmetic while answering; float32 on a CPU"
    )
    batch: AutoOrCount = Field("auto", description="Items answered together")
    threads: AutoOrCount = Field(
        "auto", description="Threads of torch on a CPU; one for small models"
    )
    merging: Literal["auto", "mergekit"] = Field(
        "auto", description="mergekit: its own arithmetic also where a faster one gives the same"
    )
    cache_gib: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto",
        description="Memory for what merges have in common, in GiB; half of what is free by "
        "default",
    )


class Search(_Part):
    """A whole search: models, space, objectives, budget."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Also the run folder's name"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    base: str | None = Field(
        None, description="The model that the endpoints were fine-tuned from; most methods need it"
    )
    endpoints: tuple[str, ...] = Field(min_length=2, description="The models to merge")
    merge: Merge
    objectives: tuple[Objective, ...] = Field(
        min_length=1, description="One: the best model is sought; several: a front"
    )
    fitness: Fitness = Fitness()
    evolution: Evolution = Evolution()
    finalists: int = Field(
        5,
        ge=1,
        description="Candidates that answer the deciding items at the end; of several objectives' "
        "the better half goes on to the fresh items",
    )
    deciding_items: int = Field(
        200, ge=1, description="Further items of the search pool that decide between finalists"
    )
    compute: Compute = Compute()
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the models; only if you trust it"
    )

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if twice := _named_twice(self.endpoints):
            raise ValueError(f"endpoints: {twice} is named twice; each may be named once")
        if twice := _named_twice([objective.benchmark for objective in self.objectives]):
            raise ValueError(f"objectives: {twice} is named twice; each may be named once")
        algorithm = ALGORITHMS[self.evolution.algorithm]
        if len(self.objectives) > 1 and not algorithm.several_objectives:
            fitting = [name for name, a in ALGORITHMS.items() if a.several_objectives]
            raise ValueError(
                f"evolution.algorithm: {self.evolution.algorithm!r} takes one objective and the "
                f"file has {len(self.objectives)}; for several: {', '.join(sorted(fitting))}"
            )
        if self.compute.dtype not in ("auto", "float32", self.merge.export_dtype):
            raise ValueError(
                f"compute.dtype: {self.compute.dtype} would round the exported "
                f"{self.merge.export_dtype} weights, and not they would be scored; allowed: auto, "
                f"float32, {self.merge.export_dtype}"
            )
        check_models(self.merge.method, len(self.endpoints), has_base=self.base is not None)
        if takes_base(self.merge.method) and self.base in self.endpoints:
            raise ValueError(
                f"endpoints: {self.base} is the base, from which {self.merge.method} takes "
                "differences; name models that were fine-tuned from it"
            )
        return self


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
