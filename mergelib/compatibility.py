"""Whether checkpoints can be merged tensor by tensor: checked before any work."""

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from transformers import AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from mergelib.checkpoints import Checkpoint, TensorInfo
from mergelib.errors import InputError

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
_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
_TOKENIZER_FILES = (
    *_VOCABULARY_FILES,
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
_ONE_VOCABULARY = (
    "give one of them the other's vocabulary first, by `mergeflow merge` with mergekit's "
    "`tokenizer: {source: ...}`"
)


Named = tuple[str, Checkpoint]
"""A model, after the search file's key that names it."""


def check_distinct(checkpoints: Sequence[Named]) -> None:
    """Refuse two names of one folder, which would be merged as two models.

    Raises:
        InputError: a model is there twice.
    """
    seen: dict[Path, Named] = {}
    for key, checkpoint in checkpoints:
        first_key, first = seen.setdefault(checkpoint.folder.resolve(), (key, checkpoint))
        if first_key != key:
            raise InputError(
                f"{key}: {checkpoint.reference!r} is the folder of {first_key}, "
                f"{first.reference!r}; name each model once, and always the same way"
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
    return notes + (_check_tokenizers(checkpoints) if one_vocabulary else [])


def _check_config(first: Named, second: Named, keys: Sequence[str]) -> None:
    (first_key, one), (key, other) = first, second
    ours, theirs = _complete(one.config), _complete(other.config)
    if ours is None or theirs is None:
        ours, theirs = one.config, other.config
    for name in keys:
        if ours.get(name) != theirs.get(name):
            remedy = _ONE_VOCABULARY if name == "vocab_size" else "models to merge must agree"
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


def _check_tokenizers(checkpoints: Sequence[Named]) -> list[str]:
    """Compare each model's tokens with those of the first that has any; returns notes."""
    notes = []
    having = []
    for key, checkpoint in checkpoints:
        if any((checkpoint.folder / name).is_file() for name in _VOCABULARY_FILES):
            having.append((key, checkpoint))
        else:
            notes.append(
                f"{key}: {checkpoint.reference}: has no tokenizer; its tokens are taken to be the "
                "other models'"
            )
    if not having:
        return notes
    (first_key, first), *others = having
    different = [(key, other) for key, other in others if _bytes(other) != _bytes(first)]
    ours = tokens(first, first_key) if different else {}
    for key, other in different:
        theirs = tokens(other, key)
        token = next((t for t in [*ours, *theirs] if ours.get(t) != theirs.get(t)), None)
        if token is not None:
            raise InputError(
                f"{key}: {other.reference}: token {token!r} {_id(theirs, token)}, but "
                f"{_id(ours, token)} in {first_key} (of {len(theirs)} and {len(ours)} tokens); "
                f"{_ONE_VOCABULARY}; or, where the ids do mean the same, copy the tokenizer files "
                "of the one over the other's"
            )
    return notes


def _bytes(checkpoint: Checkpoint) -> dict[str, bytes]:
    files = [checkpoint.folder / name for name in _TOKENIZER_FILES]
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def _id(vocabulary: Mapping[str, int], token: str) -> str:
    return f"has id {vocabulary[token]}" if token in vocabulary else "there is no such token"


def tokens(checkpoint: Checkpoint, key: str) -> dict[str, int]:
    """The id of each token of a model's tokenizer, added tokens too, in the order of the ids.

    Args:
        checkpoint: a model with tokenizer files.
        key: the search file's key that names the model, for error messages.

    Raises:
        InputError: the tokenizer is damaged, or of a kind that transformers cannot open.
    """
    where = f"{key}: {checkpoint.reference}"
    file = checkpoint.folder / "tokenizer.json"
    try:
        if file.is_file():
            # Read as the JSON that it is: on a damaged file the tokenizers library raises a bare
            # Exception, which cannot be told from any other fault.
            found = _listed(json.loads(file.read_text("utf-8")))
            settings = checkpoint.folder / "tokenizer_config.json"
            if settings.is_file():
                # Transformers adds the tokens that it finds here to those of tokenizer.json.
                further = json.loads(settings.read_text("utf-8")).get("added_tokens_decoder") or {}
                for number, added in further.items():
                    found.setdefault(added["content"], int(number))
        else:
            for name in ("vocab.json", "vocab.txt", "merges.txt"):
                _check_text(checkpoint.folder / name)
            found = AutoTokenizer.from_pretrained(
                checkpoint.folder, trust_remote_code=checkpoint.trust_remote_code
            ).get_vocab()
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
        ImportError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{where}: the tokenizer cannot be opened: {reason}; download it again"
        ) from error
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def _check_text(file: Path) -> None:
    """Raise ValueError where the tokenizers library would raise a bare Exception."""
    if file.is_file():
        text = file.read_text("utf-8")
        if file.suffix == ".json":
            json.loads(text)


def _listed(content: Any) -> dict[str, int]:
    """The tokens in a tokenizer.json: of its model (a mapping, or Unigram's list), and added."""
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):
        found = {token: number for number, (token, _) in enumerate(vocabulary)}
    else:
        found = {token: int(number) for token, number in vocabulary.items()}
    for added in content.get("added_tokens") or []:
        # As in the library: a token that the model has keeps the id that it has there.
        found.setdefault(added["content"], int(added["id"]))
    return found
