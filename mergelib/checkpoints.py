"""Opening, fingerprinting and checking checkpoints: folders of safetensors, local or from the hub.

Tensors are read through memory maps, so that opening costs nothing and several processes share one
copy. Pickled checkpoints are refused: loading one can run any code.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from mergelib.errors import InputError

_HUB_FILES = [
    "*.safetensors",
    "*.json",
    "*.jinja",
    "tokenizer*",
    "*.model",
    "merges.txt",
    "vocab.txt",
]
_INDEX = "model.safetensors.index.json"
_ANSWER_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
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


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as a safetensors header describes it."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, opened.

    Attributes:
        reference: what the search file calls it: a local path, or a hub id.
        folder: where its files are.
    """

    reference: str
    folder: Path

    @property
    def name(self) -> str:
        """A short name for tables: the last part of the path or hub id."""
        return self.reference.rstrip("/").rsplit("/", 1)[-1]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        config: dict[str, Any] = json.loads((self.folder / "config.json").read_text("utf-8"))
        return config

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The weight files that transformers would open, in the order of their names.

        Some folders hold the same weights a second time, as consolidated.safetensors.
        """
        if (self.folder / "model.safetensors").is_file():
            return (self.folder / "model.safetensors",)
        if (self.folder / _INDEX).is_file():
            index = json.loads((self.folder / _INDEX).read_text("utf-8"))
            return tuple(self.folder / name for name in sorted(set(index["weight_map"].values())))
        return tuple(sorted(self.folder.glob("*.safetensors")))

    @cached_property
    def tensor_infos(self) -> Mapping[str, TensorInfo]:
        """Shape and type of every tensor, read from the files' headers."""
        infos = {}
        for file in self.files:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    part = tensors.get_slice(name)
                    infos[name] = TensorInfo(tuple(part.get_shape()), part.get_dtype())
        return infos

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor by name, memory-mapped."""
        for file in self.files:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    yield name, tensors.get_tensor(name)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the model's answers: weights, configuration and tokenizer."""
        whole = hashlib.sha256()
        for file in (*self.files, *self._files_beside_the_weights()):
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            whole.update(f"{file.name} {digest}\n".encode())
        return whole.hexdigest()

    @cached_property
    def answering_digest(self) -> str:
        """SHA-256 of what decides how any weights answer in this model: all but the weights."""
        whole = hashlib.sha256()
        for file in self._files_beside_the_weights():
            whole.update(f"{file.name} ".encode() + file.read_bytes())
        return whole.hexdigest()

    def _files_beside_the_weights(self) -> Iterator[Path]:
        for name in _ANSWER_FILES:
            if (self.folder / name).is_file():
                yield self.folder / name


def open_checkpoint(reference: str, key: str) -> Checkpoint:
    """Find a model's folder, downloading it first where the reference is a hub id.

    Args:
        reference: a local folder, or a hub id, "owner/name" or "owner/name@revision".
        key: the search file's key that names the model, for error messages.

    Raises:
        InputError: there is no such model, or it has no safetensors.
    """
    folder = Path(reference)
    if not folder.is_dir():
        folder = _download(reference, key)
    if not (folder / "config.json").is_file():
        raise InputError(f"{key}: {reference}: has no config.json; a checkpoint's folder is needed")
    checkpoint = Checkpoint(reference, folder)
    try:
        readable = isinstance(checkpoint.config, dict)
        files = checkpoint.files
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{key}: {reference}: config.json or {_INDEX} is damaged") from error
    if not readable:
        raise InputError(f"{key}: {reference}: config.json is not a mapping")
    for file in files:
        if not file.is_file():
            raise InputError(f"{key}: {reference}: {file.name} is missing; download it again")
    if not files:
        pickled = [file.name for ending in ("*.bin", "*.pt") for file in folder.glob(ending)]
        found = f"only {pickled[0]}, which can run code when loaded" if pickled else "none"
        raise InputError(
            f"{key}: {reference}: needs *.safetensors, found {found}; convert it with "
            "model.save_pretrained(folder)"
        )
    try:
        checkpoint.tensor_infos  # noqa: B018 (reads the headers)
    except SafetensorError as error:
        raise InputError(f"{key}: {reference}: a weight file is damaged: {error}") from error
    return checkpoint


def _download(reference: str, key: str) -> Path:
    repository, _, revision = reference.partition("@")
    looks_local = reference.count("/") != 1 or reference.startswith((".", "/", "~"))
    if looks_local:
        raise InputError(f"{key}: {reference!r}: no such folder, and a hub id is owner/name")
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=_HUB_FILES)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{key}: {reference!r}: no such folder, and not to be had from the hub: {reason}"
        ) from error


def check_compatible(checkpoints: Sequence[tuple[str, Checkpoint]]) -> None:
    """Check that models can be merged tensor by tensor, before any work.

    Args:
        checkpoints: the search file's key of each model, and the model; the first is the reference.

    Raises:
        InputError: the first difference in architecture, sizes, tensor names or shapes.
    """
    (first_key, first), *others = checkpoints
    for key, other in others:
        for name in _CONFIG_KEYS:
            ours, theirs = first.config.get(name), other.config.get(name)
            if ours != theirs:
                raise InputError(
                    f"{key}: {other.reference}: {name} is {theirs}, but {ours} in {first_key}; "
                    "models to merge must agree"
                )
        for name in sorted(first.tensor_infos.keys() | other.tensor_infos.keys()):
            ours_info, theirs_info = first.tensor_infos.get(name), other.tensor_infos.get(name)
            if ours_info is None or theirs_info is None:
                lacking, having = (key, first_key) if theirs_info is None else (first_key, key)
                raise InputError(f"{key}: tensor {name} is in {having} and not in {lacking}")
            if ours_info.shape != theirs_info.shape:
                raise InputError(
                    f"{key}: tensor {name} has shape {list(theirs_info.shape)}, "
                    f"but {list(ours_info.shape)} in {first_key}"
                )
