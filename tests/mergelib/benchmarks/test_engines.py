import pytest
import torch

from mergelib.benchmarks.engines import why_not


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "has too little memory for this"),
        (RuntimeError("no kernel\nfor this"), "cannot do it: no kernel for this"),
    ],
)
def test_a_devices_error_is_one_line(error: RuntimeError, said: str) -> None:
    assert why_not(error).startswith(said)
    assert "\n" not in why_not(error)
