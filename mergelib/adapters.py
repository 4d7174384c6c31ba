"""LoRA adapters as endpoints: "model+adapter", merged once into a checkpoint of its own."""

import atexit
import hashlib
import json
import shutil
import tempfile
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, GenerationConfig

from mergelib.errors import InputError
from mergelib.files import EnoughRoom, write_folder
from mergelib.fingerprints import file_digest

if TYPE_CHECKING:
    from mergelib.checkpoints import Checkpoint

ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors"]
"""What an adapter's folder needs."""

_VERSION = 1
"""To be raised whenever an adapter's merging, or what is written of it, changes."""

_SIDE_FILES = (".json", ".jinja", ".model", ".txt", ".tiktoken")
_EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")


Shapes = dict[str, tuple[int, ...]]
"""The shape of each tensor, by name."""


class AdaptedReference(NamedTuple):
    """The two parts of "model+adapter"."""

    model: str
    adapter: str


def split_reference(reference: str) -> AdaptedReference | None:
    """Split "model+adapter" at its last "+"; None if it is a plain reference or a folder's path."""
    model, _, adapter = reference.rpartition("+")
    if not model or not adapter or Path(reference).is_dir():
        return None
    return AdaptedReference(model, adapter)


def short_name(reference: str) -> str:
    """The last part of a path or hub id; of "model+adapter", those of both joined by "+"."""
    parts = split_reference(reference)
    if parts is not None:
        return "+".join(short_name(part) for part in parts)
    return reference.rstrip("/").rsplit("/", 1)[-1]


def merge_adapter(model: "Checkpoint", adapter: Path, reference: str, key: str) -> Path:
    """Merge a LoRA adapter into its model, unless that has been done before.

    The tensors are those that mergekit writes for the same reference. The adapter is merged in the
    type that the model's configuration names, and rounded to it. Tokenizer and configuration are
    the model's own.

    Args:
        model: the model that the adapter was trained on. Its `cache` keeps what is merged, under
            the digest of both contents; without one, a temporary folder does, until the process
            ends.
        adapter: the adapter's folder.
        reference: "model+adapter", for error messages.
        key: the search file's key that names it, for error messages.

    Returns:
        The folder of the merged checkpoint.

    Raises:
        InputError: the adapter is damaged, pickled or no LoRA, changes the vocabulary, or does not
            fit the model; or the disk is full.
    """
    where = f"{key}: {reference}"
    tensors = _open(adapter, where)
    _check_vocabulary(model, tensors, where)
    digests = [model.fingerprint, *(file_digest(adapter / name) for name in ADAPTER_FILES)]
    digest = hashlib.sha256(" ".join([str(_VERSION), *digests]).encode()).hexdigest()
    folder = (_temporary() if model.cache is None else model.cache / "adapters") / digest
    if not folder.is_dir():
        with EnoughRoom(folder, sum(tensor.nbytes for _, tensor in model.tensors())):
            try:
                write_folder(folder, lambda part: _merge(model, adapter, tensors, where, part))
            except OSError:
                # Another process may have been first to rename the same content into place.
                if not folder.is_dir():
                    raise
    return folder


def _open(adapter: Path, where: str) -> Shapes:
    """The shape of each of an adapter's tensors, by name."""
    config_file, weights = (adapter / name for name in ADAPTER_FILES)
    if not config_file.is_file():
        raise InputError(f"{where}: {adapter}: has no {config_file.name}; it is no adapter")
    if not weights.is_file():
        pickled = (adapter / "adapter_model.bin").is_file()
        found = ", only adapter_model.bin, which can run code when loaded" if pickled else ""
        raise InputError(
            f"{where}: {adapter}: has no {weights.name}{found}; open it with peft and save it with "
            "model.save_pretrained(folder)"
        )
    try:
        kind = json.loads(config_file.read_text(encoding="utf-8"))["peft_type"]
        with safe_open(weights, framework="pt") as tensors:
            shapes = {
                name: tuple(tensors.get_slice(name).get_shape())
                for name in tensors.keys()  # noqa: SIM118 (not a mapping)
            }
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"{where}: {adapter}: the adapter is damaged: {_line(error)}; download it again"
        ) from error
    if kind != "LORA":
        raise InputError(f"{where}: {adapter}: peft_type is {kind!r}, and only LORA can be merged")
    return shapes


def _check_vocabulary(model: "Checkpoint", tensors: Shapes, where: str) -> None:
    ours = model.config.get("vocab_size")
    for name, shape in _of_embeddings(tensors).items():
        # Shapes: lora_embedding_A [rank, tokens]; the matrix itself, whole, and the head's lora_B
        # [tokens, ...]. The other factors do not know the vocabulary.
        last = name.removesuffix(".weight").rsplit(".", 1)[-1]
        theirs = ours
        if last == "lora_embedding_A":
            theirs = shape[-1]
        elif last in (*_EMBEDDINGS, "base_layer", "lora_B"):
            theirs = shape[0]
        if ours is not None and theirs != ours:
            raise InputError(
                f"{where}: the adapter changes the vocabulary from {ours} to {theirs} tokens "
                f"({name}); merge it into its model by hand, and name the result"
            )


def _of_embeddings(tensors: Shapes) -> Shapes:
    """An adapter's tensors that belong to the embeddings or the head."""
    return {
        name: shape
        for name, shape in tensors.items()
        if any(part in _EMBEDDINGS for part in name.split("."))
    }


def _merge(model: "Checkpoint", adapter: Path, tensors: Shapes, where: str, folder: Path) -> None:
    # Layers of an adapter are drawn at random before they are read; the caller's draws stay his.
    with torch.random.fork_rng(devices=[]):
        try:
            plain: Any = AutoModelForCausalLM.from_pretrained(
                model.folder, dtype="auto", trust_remote_code=model.trust_remote_code
            )
        except (ValueError, OSError, ImportError, StrictDataclassError) as error:
            raise InputError(f"{where}: the model cannot be opened: {_line(error)}") from error
        changed = _of_embeddings(tensors)
        if changed and _is_tied(plain):
            raise InputError(
                f"{where}: the adapter changes {min(changed)}, but the model's head is tied to its "
                "embeddings, so that merging would change both; use an adapter of other layers"
            )
        before = _shapes(plain)
        merged, unfit = _apply(plain, adapter, where)
    # An adapter may replicate layers, too.
    unfit += sorted({name for name, _ in before ^ _shapes(merged)})
    if unfit:
        raise InputError(
            f"{where}: the adapter does not fit the model: {unfit[0]} is in one of them only, or "
            "of another shape; name the model that it was trained on"
        )
    # Transformers refuses to write generation settings at odds with each other; the model's own
    # are copied below as they are.
    merged.generation_config = GenerationConfig()
    merged.save_pretrained(folder)
    for file in folder.iterdir():
        if not file.name.startswith("model"):
            file.unlink()
    _copy_side_files(model, folder)


def _is_tied(plain: Any) -> bool:
    head = plain.get_output_embeddings()
    return head is not None and head.weight is plain.get_input_embeddings().weight


def _shapes(model: Any) -> set[tuple[str, tuple[int, ...]]]:
    return {(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}


def _apply(plain: Any, adapter: Path, where: str) -> tuple[Any, list[str]]:
    """The merged model, and the names of tensors that had no place or were not there."""
    try:
        adapted: Any = PeftModel.from_pretrained(
            plain, adapter, is_trainable=False, torch_device="cpu"
        )
        # from_pretrained merely warns of tensors that do not fit.
        loaded = adapted.load_adapter(str(adapter), "default", torch_device="cpu")
        unfit = [*loaded.missing_keys, *loaded.unexpected_keys]
        return adapted.merge_and_unload(), unfit
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        # torch tells shapes that differ by a RuntimeError, and want of memory, too.
        if type(error) is RuntimeError and "size mismatch" not in str(error):
            raise
        raise InputError(
            f"{where}: the adapter does not fit the model: {_line(error)[:240]}; name the model "
            "that it was trained on"
        ) from error


def _copy_side_files(model: "Checkpoint", folder: Path) -> None:
    """Copy all but the weights: transformers would write files that the model does not have."""
    files = [
        file
        for file in model.folder.iterdir()
        if file.suffix in _SIDE_FILES
        and not file.name.endswith(".index.json")
        # Transformers would apply an adapter that lies beside a model, a second time here.
        and file.name not in ADAPTER_FILES
    ]
    if model.trust_remote_code:
        files.extend(model.folder.rglob("*.py"))
    for file in files:
        place = folder / file.relative_to(model.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


@once
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mergeflow-adapters-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
