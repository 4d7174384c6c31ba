"""Weights in an exported folder: written shard by shard, read back, opened with transformers."""

import hashlib
import shutil
from collections.abc import Mapping
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from mergekit.io.tensor_writer import TensorWriter
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from mergelib.checkpoints import Checkpoint
from mergelib.errors import MergeError
from mergelib.merging.mergekit import MergekitMerger
from mergelib.merging.plan import Plan, PlannedTensor

transformers_logging.disable_progress_bar()

_GENERATION = "generation_config.json"
_TOKENIZER_FILES = (
    "tokenizer*",
    "*.model",
    "*.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "vocab.json",
    "vocab.txt",
    "chat_template.*",
    "additional_chat_templates/*.jinja",
)
_REFUSALS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    OSError,
    StrictDataclassError,
)
"""What transformers raises where a model cannot be opened."""

_FAULTS = {
    "missing_keys": "lacks {}, which transformers would fill with random numbers",
    "unexpected_keys": "has {}, for which transformers has no place",
    "mismatched_keys": "has {} in another shape than transformers expects",
    "error_msgs": "is not understood by transformers: {}",
}


class Written(NamedTuple):
    """What has been written.

    Attributes:
        digests: the `tensor_digest` of each tensor, by name.
        dtype: the narrowest type that holds all of them unrounded; None where all are integers.
    """

    digests: Mapping[str, str]
    dtype: torch.dtype | None


def write_weights(
    merger: MergekitMerger, plan: Plan, folder: Path, shard_bytes: int = 5 * 10**9
) -> Written:
    """Merge and write one tensor after the other; no more than a shard is in memory at a time.

    Args:
        merger: made the plan.
        plan: what is merged.
        folder: is given the safetensors, and their index where there are several.
        shard_bytes: how large one file may become, unless a single tensor is larger.

    Raises:
        MergeError: a tensor cannot be merged.
    """
    writer = TensorWriter(str(folder), max_shard_size=shard_bytes)
    digests = {}
    dtypes = set()
    # Mergekit's order of an architecture that it does not know differs between processes.
    for tensor in sorted(plan.tensors, key=lambda tensor: tensor.name):
        merged = merger.execute(plan, tensor)
        if merged is None:
            continue
        digests[tensor.name] = tensor_digest(tensor.name, merged)
        if merged.is_floating_point():
            dtypes.add(merged.dtype)
        # A layer that is passed through twice is one tensor, which safetensors refuses to write.
        writer.save_tensor(tensor.name, merged, clone=_is_source(merged, tensor))
    # Not as a context: after a fault it would write what is there.
    writer.finalize()
    return Written(digests, reduce(torch.promote_types, dtypes) if dtypes else None)


def _is_source(merged: torch.Tensor, tensor: PlannedTensor) -> bool:
    places = [source.data_ptr() for source in tensor.sources if source is not None]
    return merged.data_ptr() in places


def planned_bytes(plan: Plan, checkpoints: Mapping[str, Checkpoint]) -> int:
    """About how many bytes the folder of a merged model will have."""
    beside = sum(file.stat().st_size for file in _side_files(checkpoints[plan.base]))
    return beside + sum(_size(tensor, checkpoints) for tensor in plan.tensors)


def _size(tensor: PlannedTensor, checkpoints: Mapping[str, Checkpoint]) -> int:
    sources = [source for source in tensor.sources if source is not None]
    if sources:
        own = reduce(torch.promote_types, [source.dtype for source in sources])
        return sources[0].numel() * (tensor.out_dtype or tensor.dtype or own).itemsize
    # An aligned vocabulary, in one of the models' own length.
    infos = [checkpoints[model].tensor_infos.get(tensor.name) for model in tensor.models]
    count = max((prod(info.shape) for info in infos if info is not None), default=0)
    return count * (tensor.out_dtype or tensor.dtype or torch.float32).itemsize


def tensor_digest(name: str, tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's name, type, shape and bytes, in hexadecimal."""
    whole = hashlib.sha256(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    whole.update(flat.view(torch.uint8).numpy().data)
    return whole.hexdigest()


def check_written(folder: Path, digests: Mapping[str, str]) -> None:
    """Compare a folder's tensors with those that it should hold.

    Args:
        folder: holds safetensors.
        digests: the `tensor_digest` of each tensor, by name.

    Raises:
        MergeError: a tensor differs, or is in one of both only.
    """
    missing = dict(digests)
    for name, tensor in Checkpoint(str(folder), folder).tensors():
        if missing.pop(name, None) != tensor_digest(name, tensor):
            raise MergeError(f"tensor {name} on the disk differs from what was merged")
    if missing:
        raise MergeError(f"tensor {min(missing)} was merged and is not on the disk")


def check_opens(folder: Path, trust_remote_code: bool) -> Any:
    """Open a folder as its users will, and compare the model's weights with the files.

    One copy of the model is held in memory; the files are read through memory maps.

    Returns:
        The opened model.

    Raises:
        MergeError: transformers refuses it, or lacks or changes a tensor.
    """
    # Layers are made with random numbers before they are read; the caller's draws stay his.
    with torch.random.fork_rng(devices=[]):
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                folder, dtype="auto", trust_remote_code=trust_remote_code, output_loading_info=True
            )
        except _REFUSALS as error:
            reason = " ".join(str(error).replace(str(folder), "its folder").split())[:240]
            raise MergeError(f"transformers cannot open the merged model: {reason}") from error
    for kind, fault in _FAULTS.items():
        if found := report.get(kind):
            raise MergeError(f"the merged model {fault.format(min(map(_first, found)))}")
    _check_weights(model, folder)
    return model


def _first(key: Any) -> str:
    """A tensor's name, which stands before both shapes where they differ."""
    return str(key[0] if isinstance(key, tuple) else key)


def _check_weights(model: Any, folder: Path) -> None:
    held = model.state_dict()
    for name, saved in Checkpoint(str(folder), folder).tensors():
        # Where transformers arranges weights in other pieces, the names do not agree.
        value = held.get(name)
        if value is not None and not torch.equal(value, saved.to(value.dtype)):
            raise MergeError(f"tensor {name} as transformers opens it differs from the file")


def write_side_files(base: Checkpoint, tokenizer: Any, folder: Path) -> None:
    """Write all that is no weight and no configuration.

    Args:
        base: the model whose files are copied, to the byte.
        tokenizer: is written in the place of the base model's; None: that one is copied.
        folder: where to.
    """
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    for file in _side_files(base):
        if tokenizer is None or file.name == _GENERATION:
            place = folder / file.relative_to(base.folder)
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, place)
    copy_code(base, folder)


def _side_files(base: Checkpoint) -> list[Path]:
    found = [file for name in _TOKENIZER_FILES for file in sorted(base.folder.glob(name))]
    return [file for file in (base.folder / _GENERATION, *found) if file.is_file()]


def open_to_readers(folder: Path) -> None:
    """Give the weights, which safetensors keeps to their owner, the rights of config.json."""
    for file in folder.glob("*.safetensors"):
        file.chmod((folder / "config.json").stat().st_mode)


def copy_code(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy the Python files that a model's configuration names, where they may be run."""
    if not (checkpoint.trust_remote_code and checkpoint.config.get("auto_map")):
        return
    for file in checkpoint.folder.rglob("*.py"):
        place = folder / file.relative_to(checkpoint.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
