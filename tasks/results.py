"""The files in which Prefect keeps evaluations: sealed, held to their seal, whole once written.

Prefect takes a result that it cannot read for one that is not there, and calls the task; and it
writes results in place, so that a full disk leaves an empty file and a completed task. Here damage
is told, and a result counts only when its file is whole.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from prefect.results import ResultRecord
from prefect.serializers import Serializer
from pydantic import Field, TypeAdapter

from mergelib.evaluation import Evaluation
from mergelib.files import write_atomically

logger = logging.getLogger(__name__)

_SCHEMA = TypeAdapter(Evaluation)


class SealedEvaluation(Serializer):
    """An evaluation as JSON, behind the SHA-256 of its text."""

    type: str = Field(default="sealed-evaluation", frozen=True)

    def dumps(self, obj: Evaluation) -> bytes:
        """Seal an evaluation."""
        text = json.dumps(obj, allow_nan=False).encode()
        return _seal(text) + b" " + text

    def loads(self, blob: bytes) -> Evaluation:
        """Open what `dumps` sealed.

        Raises:
            ValueError: it was altered, or is no evaluation.
        """
        seal, _, text = blob.partition(b" ")
        if seal != _seal(text):
            raise ValueError("the checksum does not fit")
        return _SCHEMA.validate_json(text, strict=True)


def tell_of_damage(file: Path) -> None:
    """Warn of a result that is there and cannot be used: its evaluation is about to be redone."""
    if file.is_file() and (fault := fault_of(file)) is not None:
        logger.warning("%s: %s; it is worked out again", file, fault)


def hold(file: Path, record: ResultRecord[Any]) -> None:
    """See to it that a result which Prefect has written is in its file, whole.

    Args:
        file: where it is to be.
        record: the result.

    Raises:
        InputError: the disk is full.
    """
    if not file.is_file() or fault_of(file) is not None:
        file.unlink(missing_ok=True)
        write_atomically(file, lambda partial: partial.write_bytes(record.serialize()))


def fault_of(file: Path) -> str | None:
    """Why a result cannot be used; None if it can."""
    content = file.read_bytes()
    if not content:
        return "is empty"
    try:
        ResultRecord.deserialize(content)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError):
        return "is truncated or was altered"
    return None


def _seal(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
