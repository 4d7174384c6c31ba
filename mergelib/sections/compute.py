"""The section `compute` of a search file: where and how models are merged and answer."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mergelib.sections.fields import AutoOrCount, Section


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
