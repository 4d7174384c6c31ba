"""What answers for a resident model, and where, as a search file has it."""

import torch

from mergelib.benchmarks.answering import Answerer
from mergelib.benchmarks.decoder import one_line
from mergelib.benchmarks.handing_over import HandedOver
from mergelib.merging.resident import ResidentModel
from mergelib.search import Search
from mergelib.sections.compute import Compute


def device_of(compute: Compute) -> str:
    """Where merges are written: the first GPU, if there is one, unless the search file says."""
    if compute.device != "auto":
        return compute.device
    # vLLM needs the GPU for itself: merges are written beside it.
    return "cuda" if torch.cuda.is_available() and compute.engine != "vllm" else "cpu"


def dtype_of(search: Search) -> str:
    """The type of the arithmetic while answering; it never rounds the exported weights."""
    if search.compute.dtype != "auto":
        return search.compute.dtype
    on_gpu = device_of(search.compute).startswith("cuda") or search.compute.engine == "vllm"
    return search.merge.export_dtype if on_gpu else "float32"


def open_answerer(resident: ResidentModel, search: Search) -> Answerer:
    """Open the engine that a search asks.

    Args:
        resident: the model.
        search: names the engine, and how it answers.

    Raises:
        InputError: the engine is not installed, or cannot take the model.
    """
    compute = search.compute
    if compute.engine == "vllm":
        dtypes, trust = (dtype_of(search), search.merge.export_dtype), search.trust_remote_code
        return HandedOver(resident, compute.batch, *dtypes, trust_remote_code=trust)
    bits = None if compute.quantization == "none" else compute.quantization
    return Answerer(resident, compute.batch, compute.engine, bits)


def why_not(search: Search, error: RuntimeError | AssertionError) -> str:
    """What an engine's error means for a search: the key and the reason, in a line."""
    if search.compute.engine == "vllm":
        return f"compute.engine: vllm: {one_line(error)}"
    device = f"compute.device: {device_of(search.compute)}"
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"{device} has too little memory for this model, even for one item at a time; lower "
            "compute.cache_gib, which merges keep beside it, or choose another device"
        )
    return f"{device} cannot do it: {' '.join(str(error).split())[:200]}"
