"""The section `compute` of a search file: where and how models are merged and answer."""

from typing import Annotated, Literal

from pydantic import Field

from mergelib.sections.fields import AutoOrCount, Section


class Compute(Section):
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
    seconds_per_candidate: float | None = Field(
        None,
        gt=0,
        description="A candidate that takes longer to be merged and answer the anchor items has "
        "failed; larger sets of items have more time, in proportion",
    )
