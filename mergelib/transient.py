"""Which errors may be gone in a moment, so that trying again is worth it, and which will not."""

from collections.abc import Iterator

import torch
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

_BUSY = (408, 425, 429, 500, 502, 503, 504)
"""HTTP's codes for a server that is overloaded or away for the moment."""

_NETWORK = (ConnectionError, TimeoutError, HfHubHTTPError.__bases__[0])
"""The last is the base of all that the hub library's HTTP client raises; which one that is depends
on the library's version."""

_NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How torch says it where it raises a plain RuntimeError."""


def is_transient(error: BaseException) -> bool:
    """Whether an error, or what it came of, is of a kind that passes.

    Memory that others hold may be free in a moment (answering has tried smaller batches by then);
    a network or a server may come back. A model that is not there will not, nor will one that may
    not be opened.
    """
    return any(_passes(cause) for cause in _chain(error))


def _passes(error: BaseException) -> bool:
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _BUSY
    if isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY):
        return True
    return isinstance(error, (torch.OutOfMemoryError, MemoryError, *_NETWORK))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
