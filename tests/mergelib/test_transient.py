from importlib import import_module

import pytest
import torch
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from mergelib import checkpoints
from mergelib.errors import InputError
from mergelib.transient import is_transient

# The client that this version of the hub's library uses.
httpx = import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])


def answer_of(code: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> HfHubHTTPError:
    request = httpx.Request("GET", "https://hub.example/model")
    return kind("no", response=httpx.Response(code, request=request))


def raised_from(cause: Exception) -> Exception:
    error = LocalEntryNotFoundError("not found")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        answer_of(503),
        answer_of(429),
        raised_from(httpx.ConnectError("no route")),
        raised_from(answer_of(500)),
        ConnectionResetError(),
        TimeoutError(),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_what_may_pass(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        answer_of(404, RepositoryNotFoundError),
        answer_of(403),
        raised_from(OfflineModeIsEnabled()),
        FileNotFoundError(),
        RuntimeError("shapes do not fit"),
        InputError("no such model"),
    ],
)
def test_what_will_not(error):
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("error", "calls"), [(answer_of(503), 4), (answer_of(404, RepositoryNotFoundError), 1)]
)
def test_downloads_are_tried_again_where_it_may_help(error, calls, monkeypatch):
    tried = []

    def snapshot_download(*_args, **_settings):
        tried.append(1)
        raise error

    monkeypatch.setattr(checkpoints, "snapshot_download", snapshot_download)
    monkeypatch.setattr(checkpoints._snapshot.retry, "sleep", lambda _seconds: None)
    with pytest.raises(InputError, match="not to be had from the hub: no"):
        checkpoints.open_checkpoint("owner/model", "base")
    assert len(tried) == calls


def test_a_download_that_works_the_second_time(monkeypatch, data):
    answers = [answer_of(502), str(data / "zoo" / "base")]

    def snapshot_download(*_args, **_settings):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(checkpoints, "snapshot_download", snapshot_download)
    monkeypatch.setattr(checkpoints._snapshot.retry, "sleep", lambda _seconds: None)
    assert checkpoints.open_checkpoint("owner/model", "base").folder == data / "zoo" / "base"
