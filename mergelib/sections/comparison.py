"""What a comparison of models may say; the type of the flow's parameter and of its form."""

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from mergelib.errors import InputError
from mergelib.faults import one_line_each
from mergelib.sections.compute import Compute
from mergelib.sections.fields import Section
from mergelib.sections.objectives import BenchmarkChoice

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""What a comparison's folder may be called, as a search's."""

_OF_SEARCHES = {
    "a comparison answers in this one process": ("runner", "workers", "cluster"),
    "a comparison has no candidates to merge": ("merging", "cache_gib", "seconds_per_candidate"),
}
"""Keys of `compute` that would do nothing here, by the reason."""


class Comparison(Section):
    """Any models on whole benchmarks: scores with intervals, and differences to the first."""

    models: tuple[str, ...] = Field(
        min_length=1,
        description="Checkpoints (folders, hub ids, model+adapter), or run folders for what they "
        "exported; the others are compared with the first",
    )
    benchmarks: tuple[BenchmarkChoice, ...] = Field(
        (), description="What they answer; by default the benchmarks of the first run folder"
    )
    pool: Literal["auto", "all", "fresh", "search"] = Field(
        "auto",
        description="Which items: all, or those that a search with this seed keeps for its end "
        "(fresh) or uses (search); auto: all, but fresh ones for a run folder's benchmarks",
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="How a search shares items out; that of the first run folder"
    )
    compute: Compute = Field(Compute(), description="Where and how the models answer")
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the models; only if you trust it"
    )

    @model_validator(mode="after")
    def _compute_is_of_use(self) -> Self:
        fields = Compute.model_fields
        refused = []
        for reason, keys in _OF_SEARCHES.items():
            given = [key for key in keys if getattr(self.compute, key) != fields[key].default]
            if given:
                names = ", ".join(f"compute.{key}" for key in given)
                refused.append(
                    f"{names}: {reason}; leave {'it' if len(given) == 1 else 'them'} out"
                )
        if refused:
            raise ValueError("; ".join(refused))
        return self


def parse_comparison(document: Any, where: str) -> Comparison:
    """Check what a comparison says.

    Args:
        document: plain values.
        where: put before each fault.

    Raises:
        InputError: one line for each fault.
    """
    try:
        return Comparison.model_validate(document)
    except ValidationError as error:
        lines = [f"{where}: {line}" for line in one_line_each(error.errors(), Comparison)]
        raise InputError("\n".join(dict.fromkeys(lines))) from error
