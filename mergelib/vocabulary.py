"""Whether models have the same tokens: what their tokenizers call by which id."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from mergelib.checkpoints import Checkpoint
from mergelib.errors import InputError

_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
_TOKENIZER_FILES = (
    *_VOCABULARY_FILES,
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
ONE_VOCABULARY = (
    "give one of them the other's vocabulary first, by `mergeflow merge` with mergekit's "
    "`tokenizer: {source: ...}`"
)

Named = tuple[str, Checkpoint]
"""A model, after the search file's key that names it."""


def check_tokenizers(checkpoints: Sequence[Named]) -> list[str]:
    """Compare each model's tokens with those of the first that has any.

    Returns:
        A line for each model without a tokenizer.

    Raises:
        InputError: a token has another id in one of them, or a tokenizer is damaged.
    """
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
                f"{ONE_VOCABULARY}; or, where the ids do mean the same, copy the tokenizer files "
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
