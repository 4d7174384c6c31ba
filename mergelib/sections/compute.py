"""The section `compute` of a search file: where and how models are merged and answer."""

import os
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mergelib.sections.fields import AutoOrCount, Section

_SMALL = 10_000_000
"""Below so many parameters, handing work to a second thread costs more than it saves."""


class Compute(Section):
    """Where and how models answer."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto, cpu, mps, cuda or cuda:1; auto takes the first GPU, if there is one",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of the arithmetic while answering; float32 on a CPU"
    )
    batch: AutoOrCount = Field("auto", description="Items answered together")
    threads: AutoOrCount = Field(
        "auto", description="Threads of torch on a CPU; one for small models"
    )
    engine: Literal["auto", "lm_eval", "vllm"] = Field(
        "auto",
        description="What answers: the fast path where it knows the model; lm-eval's own back end, "
        "the slow reference; or vLLM on a GPU",
    )
    quantization: Literal["none", "int8", "int4"] = Field(
        "none", description="Width of weights while answering; what is exported stays whole"
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

    runner: Literal["local", "dask", "ray"] = Field(
        "local",
        description="Who lets candidates answer: this process, or worker processes of Dask or Ray",
    )
    workers: int = Field(
        1, ge=1, le=4096, description="Worker processes, each with a resident model of its own"
    )
    cluster: str | None = Field(
        None,
        min_length=1,
        description="Address of a Dask scheduler or a Ray head that is running already; by default "
        "the workers are started on this machine",
    )

    @model_validator(mode="after")
    def _engine_can(self) -> Self:
        if self.engine != "vllm":
            return self
        if self.quantization != "none":
            raise ValueError(
                f"quantization: {self.quantization} is not for engine: vllm; allowed with it: none"
            )
        if self.device not in ("auto", "cpu"):
            raise ValueError(
                f"device: {self.device} is where models are merged, and engine: vllm needs the GPU "
                "for itself; allowed with it: auto, cpu"
            )
        return self

    @model_validator(mode="after")
    def _runner_fits(self) -> Self:
        if self.runner == "local" and self.workers > 1:
            raise ValueError(
                f"compute.workers: {self.workers}, but the runner local is this one process; give "
                "runner: dask or runner: ray, or workers: 1"
            )
        if self.runner == "local" and self.cluster is not None:
            raise ValueError(
                f"compute.cluster: {self.cluster} is of no use to the runner local; give runner: "
                "dask or runner: ray"
            )
        if self.runner != "local" and self.device.startswith("cuda:"):
            raise ValueError(
                f"compute.device: {self.device} names one GPU, and each worker is given its own; "
                "give auto or cuda"
            )
        return self

    def threads_for(self, parameters: int) -> int | None:
        """How many threads of a CPU answer in one process; None for as many as torch likes.

        Args:
            parameters: of the model.
        """
        if self.threads != "auto":
            return self.threads
        if parameters < _SMALL:
            return 1
        if self.runner == "local" or self.cluster is not None:
            return None
        return max(1, (os.cpu_count() or 1) // self.workers)
