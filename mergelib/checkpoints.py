"""Opening, fingerprinting and checking checkpoints: folders of safetensors, local or from the hub.

Tensors are read through memory maps, so that opening costs nothing and several processes share one
copy. Pickled checkpoints are refused: loading one can run any code.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from mergelib.adapters import ADAPTER_FILES, merge_adapter, short_name, split_reference
from mergelib.errors import InputError
from mergelib.fingerprints import file_digest
from mergelib.transient import is_transient

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
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json")


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as a safetensors header describes it."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, opened.

    Attributes:
        reference: what the search file calls it: a local path, a hub id, or "model+adapter".
        folder: where its files are.
        cache: the folder, beside the runs, that remembers digests of weights and merged adapters.
        trust_remote_code: whether the Python files in its folder may be run.
    """

    reference: str
    folder: Path
    cache: Path | None = None
    trust_remote_code: bool = False

    @property
    def name(self) -> str:
        """A short name for tables: the last part of the path or hub id, of an adapter's too."""
        return short_name(self.reference)

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
        if self.index:
            return tuple(self.folder / name for name in sorted(set(self.index.values())))
        return tuple(sorted(self.folder.glob("*.safetensors")))

    @cached_property
    def index(self) -> Mapping[str, str]:
        """The weight file of each tensor, by name; empty where one file holds them all."""
        file = self.folder / _INDEX
        if (self.folder / "model.safetensors").is_file() or not file.is_file():
            return {}
        weight_map: dict[str, str] = json.loads(file.read_text("utf-8"))["weight_map"]
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError("weight_map names no files")
        return weight_map

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
        for file in self.files:
            whole.update(f"{file.name} {file_digest(file, self.cache)}\n".encode())
        for name, file in self._files_beside_the_weights():
            whole.update(f"{name} {file_digest(file)}\n".encode())
        return whole.hexdigest()

    @cached_property
    def answering_digest(self) -> str:
        """SHA-256 of what decides how any weights answer in this model: all but the weights."""
        whole = hashlib.sha256()
        for name, file in self._files_beside_the_weights():
            whole.update(f"{name} ".encode() + file.read_bytes())
        return whole.hexdigest()

    def _files_beside_the_weights(self) -> Iterator[tuple[str, Path]]:
        """Name, within the folder, and path of each small file that decides answers."""
        for name in _ANSWER_FILES:
            if (self.folder / name).is_file():
                yield name, self.folder / name
        if self.trust_remote_code:
            for file in sorted(self.folder.rglob("*.py")):
                yield file.relative_to(self.folder).as_posix(), file


def open_checkpoint(
    reference: str, key: str, *, cache: Path | None = None, trust_remote_code: bool = False
) -> Checkpoint:
    """Find a model's folder, downloading or merging it first where the reference asks for it.

    Args:
        reference: a local folder, a hub id, "owner/name" or "owner/name@revision", or
            "model+adapter", each part of which is one of the former: a LoRA adapter is merged into
            its model once.
        key: the search file's key that names the model, for error messages.
        cache: a folder beside the runs for digests of weights and merged adapters; it need not be
            there yet. None: digests are not remembered, and merged adapters are gone at the
            process's end.
        trust_remote_code: whether the Python files that come with the model may be run.

    Raises:
        InputError: there is no such model, it is damaged or pickled, needs code that is not
            trusted, or an adapter does not fit.
    """
    parts = split_reference(reference)
    if parts is not None:
        model = open_checkpoint(parts.model, key, cache=cache, trust_remote_code=trust_remote_code)
        adapter = _find(parts.adapter, key, ADAPTER_FILES)
        folder = merge_adapter(model, adapter, reference, key)
        return Checkpoint(reference, folder, cache, trust_remote_code)
    folder = _find(reference, key, [*_HUB_FILES, *(["*.py"] if trust_remote_code else [])])
    checkpoint = Checkpoint(reference, folder, cache, trust_remote_code)
    _check_config(checkpoint, key)
    _check_weights(checkpoint, key)
    return checkpoint


def _check_config(checkpoint: Checkpoint, key: str) -> None:
    where = f"{key}: {checkpoint.reference}"
    if not (checkpoint.folder / "config.json").is_file():
        if (checkpoint.folder / ADAPTER_FILES[0]).is_file():
            raise InputError(f"{where}: is an adapter; write it as model+adapter, with its model")
        raise InputError(f"{where}: has no config.json; a checkpoint's folder is needed")
    try:
        config = checkpoint.config
    except ValueError as error:
        raise InputError(f"{where}: config.json is damaged: {error}; download it again") from error
    if not isinstance(config, dict):
        raise InputError(f"{where}: config.json is not a mapping; download it again")
    known = str(config.get("model_type")) in CONFIG_MAPPING_NAMES
    if config.get("auto_map") and not known and not checkpoint.trust_remote_code:
        raise InputError(
            f"{where}: model_type {config.get('model_type')!r} is not known to transformers; it "
            "needs trust_remote_code: true in the search file, which runs the model's own code"
        )


def _check_weights(checkpoint: Checkpoint, key: str) -> None:
    where = f"{key}: {checkpoint.reference}"
    try:
        files = checkpoint.files
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: {_INDEX} is damaged; download it again") from error
    if not files:
        pickled = sorted(f.name for ending in _PICKLED for f in checkpoint.folder.glob(ending))
        found = "none" if checkpoint.folder == Path(checkpoint.reference) else "none on the hub"
        if pickled:
            found = f"only {pickled[0]}, which can run code when loaded"
        raise InputError(
            f"{where}: needs *.safetensors, found {found}; convert it with "
            "model.save_pretrained(folder)"
        )
    for file in files:
        fault = _fault(
            file, [name for name, shard in checkpoint.index.items() if shard == file.name]
        )
        if fault is not None:
            raise InputError(f"{where}: {file.name} {fault}; download it again")


def _fault(file: Path, listed: Iterable[str]) -> str | None:
    """What is wrong with a weight file, in which the index lists some tensors."""
    if not file.is_file():
        return "is missing"
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_size = int.from_bytes(stream.read(8), "little")
        header = stream.read(min(header_size, size))
    # Not every version of safetensors compares the file's size with what its header promises.
    needed = 8 + header_size
    try:
        if needed <= size:
            entries = [
                entry for name, entry in json.loads(header).items() if name != "__metadata__"
            ]
            needed += max((entry["data_offsets"][1] for entry in entries), default=0)
        if needed > size:
            return f"is damaged: it has {size} bytes of {needed}"
        with safe_open(file, framework="pt") as tensors:
            missing = set(listed) - set(tensors.keys())
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        return f"is damaged: {' '.join(str(error).split())}"
    return f"lacks the tensor {min(missing)}, which {_INDEX} lists" if missing else None


def _find(reference: str, key: str, patterns: list[str]) -> Path:
    """A local folder, or the one into which the hub's files are downloaded."""
    folder = Path(reference)
    return folder if folder.is_dir() else _download(reference, key, patterns)


def _download(reference: str, key: str, patterns: list[str]) -> Path:
    repository, _, revision = reference.partition("@")
    looks_local = reference.count("/") != 1 or reference.startswith((".", "/", "~"))
    if looks_local:
        raise InputError(f"{key}: {reference!r}: no such folder, and a hub id is owner/name")
    try:
        return _snapshot(repository, revision or None, patterns)
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{key}: {reference!r}: no such folder, and not to be had from the hub: {reason}"
        ) from error


@retry(
    retry=retry_if_exception(is_transient),
    wait=wait_exponential(),
    stop=stop_after_attempt(4),
    reraise=True,
)
def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    """Download what is missing; after 1, 2 and 4 seconds once more, if that may help."""
    return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
