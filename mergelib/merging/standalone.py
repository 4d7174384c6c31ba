"""`mergeflow merge`: one plain mergekit YAML, merged to a Hugging Face folder tensor by tensor."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mergelib.adapters import short_name, split_reference
from mergelib.checkpoints import Checkpoint, open_checkpoint
from mergelib.compatibility import check_compatible, check_distinct
from mergelib.errors import InputError, MergeError
from mergelib.files import EnoughRoom, write_folder
from mergelib.merging.documents import at, holders_of, reference
from mergelib.merging.folder import (
    check_opens,
    check_written,
    open_to_readers,
    planned_bytes,
    write_side_files,
    write_weights,
)
from mergelib.merging.mergekit import MergekitMerger
from mergelib.merging.methods import RANDOM_METHODS
from mergelib.merging.plan import Plan
from mergelib.merging.validation import recipe_faults
from mergelib.recipes import Recipe
from mergelib.vocabulary import tokens

_CARD = """\
---
{front}---
# {title}

A merge of {models} by `{method}`, made by mergeflow {version} from this mergekit configuration
(`mergekit_config.yml` beside this file).{masks}

{fence}yaml
{recipe}
{fence}
"""


def merge_to_folder(
    recipe_file: Path, out: Path, *, seed: int = 0, trust_remote_code: bool = False
) -> None:
    """Merge a mergekit configuration to a folder that transformers, lm-eval and mergekit open.

    The tensors are those that mergekit itself writes, save for random masks, which here follow from
    the seed, the model and the tensor's name. No more than a shard of them is in memory at a time.
    Before the folder gets its name, each tensor is read back, and the model opened.

    Args:
        recipe_file: the YAML. Models are local paths from the current directory, hub ids,
            "owner/name@revision", "model+adapter", or mergekit's mapping of those parts.
        out: the folder to be made; it must not be there, not even empty.
        seed: decides the random masks of DARE and DELLA.
        trust_remote_code: whether Python files that come with a model may be run.

    Raises:
        InputError: the file, the recipe in it, a model, or the place is at fault, or the disk is
            full. Nothing has been written.
        MergeError: what was written is not what was merged; the folder has been taken away.
    """
    _check_place(out)
    text = _read(recipe_file)
    with _recipes_fault(recipe_file):
        recipe, named = _parse(text)
    keys = {name: f"{recipe_file}: {model.key}" for name, model in named.items()}
    checkpoints = {
        name: open_checkpoint(model.reference, keys[name], trust_remote_code=trust_remote_code)
        for name, model in named.items()
    }
    opened = [(keys[name], checkpoint) for name, checkpoint in checkpoints.items()]
    check_distinct(opened)
    _check_fit(recipe, opened)
    with _recipes_fault(recipe_file):
        merger = MergekitMerger(checkpoints, seed)
        plan = merger.plan(recipe)
        base = checkpoints[plan.base]
        tokenizer, config = _tokenizer_and_config(plan, base)

    def fill(folder: Path) -> None:
        write_side_files(base, tokenizer, folder)
        (folder / "mergekit_config.yml").write_bytes(text.encode())
        card = _card(text, recipe, checkpoints, seed, recipe_file.stem)
        (folder / "README.md").write_bytes(card.encode())
        with _recipes_fault(recipe_file):
            written = write_weights(merger, plan, folder)
        # Opened in this type, no tensor is rounded.
        config.dtype = written.dtype or config.dtype
        config.save_pretrained(folder)
        open_to_readers(folder)
        check_written(folder, written.digests)
        with _recipes_fault(recipe_file):
            check_opens(folder, trust_remote_code)

    with EnoughRoom(out, planned_bytes(plan, checkpoints)):
        write_folder(out, fill)


@contextmanager
def _recipes_fault(recipe_file: Path) -> Iterator[None]:
    """Tell why a recipe cannot be merged as the recipe file's fault."""
    try:
        yield
    except MergeError as error:
        raise InputError(f"{recipe_file}: {error}") from error


def _check_place(out: Path) -> None:
    if os.path.lexists(out):
        raise InputError(f"{out}: is there already; name a folder that is not")
    above = next(a for a in out.absolute().parents if os.path.lexists(a))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = "cannot be written to" if above.is_dir() else "is no folder"
        raise InputError(f"{out}: {above} {reason}; name another place")


def _read(recipe_file: Path) -> str:
    try:
        # Not read_text, which would turn line ends into others: the file is copied as it is.
        return recipe_file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise InputError(f"{recipe_file}: cannot be read: {reason}") from error


class _Named(NamedTuple):
    """A model as a recipe names it: for `open_checkpoint`, and the key where it first stands."""

    reference: str
    key: str


def _parse(text: str) -> tuple[Recipe, dict[str, _Named]]:
    """The recipe with each model's name as one string, and the model of each name.

    Raises:
        MergeError: it is no YAML, or no recipe.
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MergeError(f"not YAML: {' '.join(str(error).split())}") from error
    if faults := recipe_faults(document):
        raise MergeError("; ".join(faults))
    named: dict[str, _Named] = {}
    recipe = Recipe({key: _as_names(key, value, key, named) for key, value in document.items()})
    return recipe, {name: named[name] for name in recipe.models}


def _as_names(key: str, value: Any, path: str, named: dict[str, _Named]) -> Any:
    """A part of the document with each mapping of a model as its name; notes the names."""
    if isinstance(value, list):
        return [_as_names(key, part, at(path, n), named) for n, part in enumerate(value)]
    is_source = key in ("source", "tokenizer_source")
    is_word = is_source and value in ("union", "base")
    if key == "parameters" or is_word or not isinstance(value, str | Mapping):
        return value
    is_model = is_source or key in ("model", "base_model")
    if isinstance(value, Mapping) and not (is_model and "model" in value and "kind" not in value):
        return {k: _as_names(k, part, at(path, k), named) for k, part in value.items()}
    if not is_model:
        return value
    model = reference(value)
    assert model is not None
    if model.override_architecture is not None:
        raise MergeError(f"{path}.override_architecture: cannot be merged here; leave it out")
    # A "+" or "@" in a folder's name means something else in a string than in a mapping.
    plain = reference(str(model)) == model
    known = (name for name, other in named.items() if other.reference == str(model))
    name = str(model) if plain else next(known, path)
    named.setdefault(name, _Named(str(model), path))
    return name


def _check_fit(recipe: Recipe, opened: list[tuple[str, Checkpoint]]) -> None:
    """Check that models can be merged: slices may have other depths, aligned tokenizers other ids.

    Raises:
        InputError: they differ in anything else.
    """
    sliced = any(holder.get("slices") for _, holder in holders_of(recipe.config))
    aligned = bool(recipe.config.get("tokenizer_source") or recipe.config.get("tokenizer"))
    check_compatible(opened, one_depth=not sliced, one_vocabulary=not aligned)
    if aligned:
        for key, model in opened:
            if (model.folder / "tokenizer.json").is_file():
                tokens(model, key)


def _tokenizer_and_config(plan: Plan, base: Checkpoint) -> tuple[Any, Any]:
    """The merged model's tokenizer, None where it is the base model's; and its configuration.

    Raises:
        MergeError: one of them cannot be made.
    """
    tokenizer, config = plan.tokenizer, plan.model_config
    if hasattr(config, "auto_map") and not base.trust_remote_code:
        # It would name Python files that are not copied.
        del config.auto_map
    return tokenizer, config


def _card(
    text: str, recipe: Recipe, checkpoints: Mapping[str, Checkpoint], seed: int, title: str
) -> str:
    """The model card: what was merged, and how."""
    names = list(dict.fromkeys(n for c in checkpoints.values() for n in _public_names(c.reference)))
    front = {
        "library_name": "transformers",
        "base_model": names,
        "tags": ["mergeflow", "mergekit", "merge"],
    }
    masks = f" Its random masks follow from seed {seed}." if recipe.method in RANDOM_METHODS else ""
    ticks = max((len(run) for run in re.findall("`+", text)), default=0)
    return _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        title=title,
        models=", ".join(names),
        method=recipe.method,
        version=version("mergeflow"),
        masks=masks,
        fence="`" * max(3, ticks + 1),
        recipe=text.rstrip("\n"),
    )


def _public_names(reference: str) -> list[str]:
    """What a model is called on a card: its hub id, or its folder's name; an adapter besides."""
    parts = split_reference(reference)
    if parts is not None:
        return [name for part in parts for name in _public_names(part)]
    # A folder's place is nobody else's concern.
    return [short_name(reference) if Path(reference).is_dir() else reference.partition("@")[0]]
