"""What a search file may say: one pydantic model, shared by the YAML file and the flow's parameter.

Relative paths in a search file are read from the file's own folder. What can be checked without
opening a checkpoint or a benchmark is checked here; the rest in `mergelib.checkpoints` and
`mergelib.benchmarks.items`, also before any work.
"""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from mergelib.errors import InputError, unknown
from mergelib.estimators import ESTIMATORS
from mergelib.evolution.algorithms import ALGORITHMS
from mergelib.irt.selection import SELECTIONS
from mergelib.merging.methods import check_models, check_parameter, merge_methods


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


ParameterValue = Range | bool | int | float | str


class Merge(_Part):
    """The space of recipes: the merge method and which of its parameters are searched."""

    method: MethodName = Field(description="Any method of the installed mergekit")
    layer_groups: int = Field(
        1, ge=1, description="Sets of parameters over the depth; 1 is one set for all layers"
    )
    components: tuple[str, ...] = Field(
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
        for name, value in self.parameters.items():
            ends = [value.low, value.high] if isinstance(value, Range) else [value]
            for end in ends:
                check_parameter(self.method, name, end, searched=isinstance(value, Range))
        if not any(isinstance(value, Range) for value in self.parameters.values()):
            raise ValueError(
                "merge.parameters holds every parameter fixed: there is nothing to search; "
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

    source: Literal["self"] = Field("self", description="Random merges answer a share of the items")
    models: int = Field(12, ge=0, le=1000, description="How many random merges answer")
    share: float = Field(0.15, gt=0, le=1, description="The share of the items that each answers")


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
    finalists: int = Field(5, ge=1, description="Candidates that are re-scored at the end")
    deciding_items: int = Field(
        200, ge=1, description="Further items of the search pool that decide between finalists"
    )
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if len(set(self.endpoints)) < len(self.endpoints):
            raise ValueError("endpoints: a model is named twice; each may be named once")
        names = [objective.benchmark for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError("objectives: a benchmark is named twice; each may be named once")
        algorithm = ALGORITHMS[self.evolution.algorithm]
        if len(self.objectives) > 1 and not algorithm.several_objectives:
            fitting = [name for name, a in ALGORITHMS.items() if a.several_objectives]
            raise ValueError(
                f"evolution.algorithm: {self.evolution.algorithm!r} takes one objective and the "
                f"file has {len(self.objectives)}; for several: {', '.join(sorted(fitting))}"
            )
        check_models(self.merge.method, len(self.endpoints), has_base=self.base is not None)
        return self


def load_search(path: Path, overrides: Iterable[str] = ()) -> Search:
    """Read a search file.

    Args:
        path: the YAML file.
        overrides: "key=value" settings that win over the file; keys are dotted
            ("evolution.generations"), list entries by number ("objectives.0.metric"), values YAML.

    Returns:
        The search, with every local path in it made absolute.

    Raises:
        InputError: the file cannot be read or says something that is not allowed; one line for
            each fault, naming the key, the value and what is allowed.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: a search file is a mapping of keys, such as name: my-search")
    for override in overrides:
        _apply(document, override)
    _make_paths_absolute(document, path.resolve().parent)
    return parse_search(document, str(path))


def parse_search(document: Any, where: str) -> Search:
    """Check a search file's content; see `load_search`.

    Args:
        document: the parsed YAML.
        where: the file's name, put before each fault.

    Raises:
        InputError: one line for each fault.
    """
    try:
        return Search.model_validate(document)
    except ValidationError as error:
        lines = [f"{where}: {_one_line(fault, document)}" for fault in error.errors()]
        raise InputError("\n".join(dict.fromkeys(lines))) from error


_UNION_TAGS = {"Range", "bool", "int", "float", "str", "literal['auto']", "constrained-int"}


def _one_line(fault: Any, document: Any) -> str:
    """Say a pydantic fault as "key.path: what is wrong; what is allowed"."""
    path = [part for part in fault["loc"] if part not in _UNION_TAGS]
    key = ".".join(str(part) for part in path)
    kind, value = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        *parents, last = path
        return f"{key}: " + unknown("a key here", str(last), _keys_at(parents))
    if kind == "missing":
        return f"{key}: is required"
    if kind == "too_short":
        context = fault["ctx"]
        noun = "entries" if context["min_length"] > 1 else "entry"
        return (
            f"{key}: at least {context['min_length']} {noun} needed, "
            f"{context['actual_length']} given"
        )
    message = str(fault["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        own_key = re.match(r"[a-z_.]+(?=[:. ])", message)
        return message if not key or (own_key and key in own_key[0]) else f"{key}: {message}"
    message = message[0].lower() + message[1:]
    shown = value if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return f"{key}: {shown!r}: {message}"


def _keys_at(path: list[Any]) -> list[str]:
    """The keys that may stand at a place in a search file."""
    model: Any = Search
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = (annotation, *getattr(annotation, "__args__", ()))
        model = next(
            (c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), Range
        )
    return list(model.model_fields)


def _apply(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override}: write key=value, such as evolution.generations=20")
    *parents, last = key.split(".")
    place: Any = document
    for part in parents:
        place = _step(place, part, override)
    value = yaml.safe_load(text)
    if isinstance(place, list):
        _step(place, last, override)
        place[int(last)] = value
    else:
        place[last] = value


def _step(place: Any, part: str, override: str) -> Any:
    if isinstance(place, list):
        if not part.isdecimal() or int(part) >= len(place):
            raise InputError(
                f"--set {override}: {part!r} is not an entry; allowed: 0 to {len(place) - 1}"
            )
        return place[int(part)]
    below = place.setdefault(part, {}) if isinstance(place, dict) else None
    if not isinstance(below, dict | list):
        raise InputError(f"--set {override}: {part!r} holds a value, not further keys")
    return below


def _make_paths_absolute(document: dict[str, Any], folder: Path) -> None:
    """Turn every model and benchmark that is a path beside the search file into an absolute one."""

    def absolute(value: Any) -> Any:
        local = isinstance(value, str) and value and (folder / value).exists()
        return str((folder / value).resolve()) if local else value

    if document.get("base"):
        document["base"] = absolute(document["base"])
    if isinstance(document.get("endpoints"), list):
        document["endpoints"] = [absolute(endpoint) for endpoint in document["endpoints"]]
    objectives = document.get("objectives")
    for objective in objectives if isinstance(objectives, list) else []:
        if isinstance(objective, dict) and "benchmark" in objective:
            objective["benchmark"] = absolute(objective["benchmark"])
