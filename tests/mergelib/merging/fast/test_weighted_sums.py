import os
import platform
import subprocess
import sys

import pytest
import torch

from mergelib.merging.fast import compiled, device

SIZES = [0, 1, 15, 16, 17, 100, 1027]
ONE_MACHINE = """
import platform, sys
platform.machine = lambda: sys.argv[1]
import numpy as np
from mergelib.merging.fast import weighted_sums
one, other = np.arange(100, dtype="f4"), np.ones(100, "f4")
out = np.empty(100, "f4")
halves = np.array([0.5, 0.5], "f4")
assert weighted_sums.linear((one, other), halves, True, np.float32(1), False, True, out)
assert (out == (one + 1) / 2).all()
code = "".join(weighted_sums.linear.inspect_asm().values())
print("movnt" in code, "sfence" in code)
"""


def drawn(count: int, size: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    # One element later than an aligned address.
    return [torch.randn(size + 1, generator=generator).to(dtype)[1:] for _ in range(count)]


def written(kernels, method: str, sources, *settings, streamed=False, begin=0):
    """What a kernel writes at an offset, after a check that it leaves the rest alone."""
    size = sources[0].numel()
    place = torch.full((size + 64,), 7.0)
    out = place[begin : begin + size]
    finite = getattr(kernels, method)(sources, *settings, streamed, out)
    assert (place[:begin] == 7).all()
    assert (place[begin + size :] == 7).all()
    return bool(finite), out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rounding", [None, torch.bfloat16])
@pytest.mark.parametrize("streamed", [False, True])
def test_equals_torch_to_the_bit_from_any_address_on(size, dtype, rounding, streamed):
    for count, weights in ((1, (0.7,)), (2, (0.3, 0.9)), (3, (0.3, -0.5, 1.1))):
        sources = drawn(count, size, dtype)
        for divisor in (None, 1.0, 1.7):
            settings = sources, weights, divisor, rounding
            _, truth = written(device, "linear", *settings)
            for begin in (0, 1, 5, 15, 16):
                placed = {"streamed": streamed, "begin": begin}
                finite, got = written(compiled, "linear", *settings, **placed)
                assert finite
                assert torch.equal(got, truth)
    settings = drawn(2, size, dtype), (0.3, 0.9), rounding
    _, truth = written(device, "interpolate", *settings)
    for begin in (0, 3):
        got = written(compiled, "interpolate", *settings, streamed=streamed, begin=begin)
        assert got[0]
        assert torch.equal(got[1], truth)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), 3.4e38])
@pytest.mark.parametrize("at", [0, 20, 99])
@pytest.mark.parametrize("streamed", [False, True])
def test_finds_what_is_not_finite_wherever_it_lies(value, at, streamed):
    one, other = torch.ones(100), torch.ones(100)
    one[at] = value
    for rounding in (None, torch.bfloat16):
        # 3.4e38 is a float32, which bfloat16 rounds to infinity.
        holds = value == 3.4e38 and rounding is None
        settings = (rounding,), {"streamed": streamed, "begin": 3}
        kept = written(compiled, "linear", (one, other), (1, 0), None, *settings[0], **settings[1])
        assert kept[0] == holds
        kept = written(compiled, "interpolate", (one, other), (1, 0), *settings[0], **settings[1])
        assert kept[0] == holds


@pytest.mark.parametrize("machine", [platform.machine(), "aarch64"])
def test_goes_past_the_caches_only_where_that_is_known_to_help(machine, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", ONE_MACHINE, machine],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    known = machine.lower() in ("x86_64", "amd64")
    assert run.stdout.split() == [str(known)] * 2
