"""Whether checkpoints can be merged tensor by tensor: checked before any work."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from mergelib.checkpoints import Checkpoint, TensorInfo
from mergelib.errors import InputError
from mergelib.vocabulary import ONE_VOCABULARY, Named, check_tokenizers

_CONFIG_KEYS = (
    "architectures",
    "num_hidden_layers",
    "hidden_size",
    "vocab_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "sliding_window",
)
"""What must agree: all models answer in one architecture, the first one's."""

_FLOATS = {"F64", "F32", "F16", "BF16"}
_HEAD = "lm_head.weight"
_EMBEDDINGS = "embed_tokens.weight"


def check_distinct(checkpoints: Sequence[Named]) -> None:
    """Refuse two names of one folder, which mergekit would take for two models.

    Args:
        checkpoints: the key of each model in the file that names it, and the model.

    Raises:
        InputError: a model is there twice.
    """
    seen: dict[Path, Named] = {}
    for key, checkpoint in checkpoints:
        first_key, first = seen.setdefault(checkpoint.folder.resolve(), (key, checkpoint))
        if first_key != key:
            raise InputError(
                f"{key}: {checkpoint.reference!r} is the folder of {first.reference!r} "
                f"({first_key}); name each model once, and always the same way"
            )


def check_compatible(
    checkpoints: Sequence[Named], *, one_depth: bool = True, one_vocabulary: bool = True
) -> list[str]:
    """Check that models can be merged tensor by tensor, before any work.

    Args:
        checkpoints: the search file's key of each model, and the model; the first is the reference.
        one_depth: whether all must have as many layers; slices take layers as they like.
        one_vocabulary: whether all must have the same tokens; a recipe's tokenizer options align
            other ones.

    Returns:
        What is no obstacle but worth telling, a line each: models stored in different types, and
        models without a tokenizer.

    Raises:
        InputError: the first difference in architecture, sizes, tensor names, shapes or tokens, or
            a quantised tensor.
    """
    (first_key, first), *others = checkpoints
    notes = []
    free = {"num_hidden_layers": not one_depth, "vocab_size": not one_vocabulary}
    keys = [name for name in _CONFIG_KEYS if not free.get(name)]
    for key, other in others:
        _check_config((first_key, first), (key, other), keys)
    _check_types(checkpoints)
    for key, other in others:
        _check_head((first_key, first), (key, other))
        _check_tensors((first_key, first), (key, other), one_depth, one_vocabulary)
        ours, theirs = _stored_types(first), _stored_types(other)
        if ours != theirs:
            notes.append(
                f"{key}: {other.reference}: is stored in {theirs}, but {first_key} in {ours}; "
                "they are merged in float32 arithmetic"
            )
    return notes + (check_tokenizers(checkpoints) if one_vocabulary else [])


def _check_config(first: Named, second: Named, keys: Sequence[str]) -> None:
    (first_key, one), (key, other) = first, second
    ours, theirs = _complete(one.config), _complete(other.config)
    if ours is None or theirs is None:
        ours, theirs = one.config, other.config
    for name in keys:
        if ours.get(name) != theirs.get(name):
            remedy = ONE_VOCABULARY if name == "vocab_size" else "models to merge must agree"
            raise InputError(
                f"{key}: {other.reference}: {name} is {theirs.get(name)}, but {ours.get(name)} in "
                f"{first_key}; {remedy}"
            )


def _complete(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """A configuration as transformers understands it, with defaults and today's names.

    Older files have rope_theta and rope_scaling, for example, where newer have rope_parameters.

    Returns:
        None where transformers does not know the model, or refuses the configuration.
    """
    model_type = str(config.get("model_type"))
    if model_type not in CONFIG_MAPPING_NAMES:
        return None
    try:
        # from_dict writes into the dictionaries inside of what it is given.
        understood = CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(dict(config)))
    except (
        StrictDataclassError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
    ):
        return None
    complete: dict[str, Any] = understood.to_dict()
    rope = complete.get("rope_parameters")
    if isinstance(rope, dict):
        # The older name of rope_type, kept beside it.
        complete["rope_parameters"] = {k: v for k, v in rope.items() if k != "type"}
    return complete


def _check_types(checkpoints: Sequence[Named]) -> None:
    """Refuse quantised checkpoints: their tensors are codes, whose means mean nothing."""
    first_key, first = checkpoints[0]
    for key, checkpoint in checkpoints:
        for name, info in sorted(checkpoint.tensor_infos.items()):
            if info.dtype in _FLOATS:
                continue
            elsewhere = next(
                (
                    (other_key, found.dtype)
                    for other_key, other in checkpoints
                    if (found := other.tensor_infos.get(name)) and found.dtype in _FLOATS
                ),
                None,
            )
            if elsewhere is None and not _is_matrix(name, info, checkpoint.config):
                continue
            where, dtype = elsewhere or (first_key, _type_of(first.tensor_infos.get(name)))
            beside = f", but {dtype} in {where}" if where != key else ""
            raise InputError(
                f"{key}: {checkpoint.reference}: tensor {name} is stored in {info.dtype}{beside}; "
                "quantised checkpoints cannot be merged: name the model that it was quantised from"
            )


def _type_of(info: TensorInfo | None) -> str:
    return info.dtype if info else "absent"


def _is_matrix(name: str, info: TensorInfo, config: Mapping[str, Any]) -> bool:
    """Whether a tensor is a matrix of weights, and not a mask or positions, which are integers."""
    named_so = "weight" in name.rsplit(".", 1)[-1] or config.get("quantization_config")
    return len(info.shape) > 1 and bool(named_so)


def _stored_types(checkpoint: Checkpoint) -> str:
    types = {info.dtype for info in checkpoint.tensor_infos.values()}
    return " and ".join(sorted(types & _FLOATS))


def _check_head(first: Named, second: Named) -> None:
    """Models tie their head to the embeddings, or none does; judged by the stored tensors."""
    stored = [(key, model) for key, model in (first, second) if _HEAD in model.tensor_infos]
    if not stored:
        return
    (first_key, one), (key, other) = first, second
    if len(stored) == 1:
        untied_key, untied = stored[0]
        tied_key = key if untied_key == first_key else first_key
        equal = (
            f"the stored one equals the embeddings: take it away by opening {untied.reference} "
            "with tie_word_embeddings: true in its config.json and saving it again"
            if _head_equals_embeddings(untied)
            else f"store a copy of the embeddings as {_HEAD} in {tied_key} and set "
            "tie_word_embeddings: false in its config.json"
        )
        raise InputError(
            f"{key}: {other.reference}: the embeddings are tied in {tied_key} (it stores no "
            f"{_HEAD}) and untied in {untied_key} (it stores one); {equal}"
        )
    configs = [_complete(model.config) or model.config for model in (one, other)]
    ours, theirs = (config.get("tie_word_embeddings") for config in configs)
    if ours != theirs and not all(_head_equals_embeddings(model) for model in (one, other)):
        raise InputError(
            f"{key}: {other.reference}: tie_word_embeddings is {theirs}, but {ours} in {first_key},"
            f" and both store a {_HEAD}; set it to false in the config.json of both"
        )


def _head_equals_embeddings(checkpoint: Checkpoint) -> bool:
    found = {}
    for file in checkpoint.files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                if name == _HEAD or name.endswith(_EMBEDDINGS):
                    found[name == _HEAD] = tensors.get_tensor(name)
    return len(found) == 2 and torch.equal(found[True], found[False])


def _check_tensors(first: Named, second: Named, one_depth: bool, one_vocabulary: bool) -> None:
    (first_key, one), (key, other) = first, second
    depths = [model.config.get("num_hidden_layers", 0) for model in (one, other)]
    for name in sorted(one.tensor_infos.keys() | other.tensor_infos.keys()):
        layer = re.search(r"\.(\d+)\.", name)
        if not one_depth and layer and int(layer[1]) >= min(depths):
            continue
        ours, theirs = one.tensor_infos.get(name), other.tensor_infos.get(name)
        if ours is None or theirs is None:
            lacking, having = (key, first_key) if theirs is None else (first_key, key)
            raise InputError(f"{key}: tensor {name} is in {having} and not in {lacking}")
        shapes = [ours.shape, theirs.shape]
        if not one_vocabulary and not layer:
            shapes = [_per_token(info.shape, m) for info, m in ((ours, one), (theirs, other))]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{key}: tensor {name} has shape {list(theirs.shape)}, "
                f"but {list(ours.shape)} in {first_key}"
            )


def _per_token(shape: tuple[int, ...], checkpoint: Checkpoint) -> tuple[int, ...]:
    """The shape of what a tensor has for each token; its own shape where it has no such axis."""
    tokens = checkpoint.config.get("vocab_size")
    return shape[1:] if len(shape) == 2 and shape[0] == tokens else shape
