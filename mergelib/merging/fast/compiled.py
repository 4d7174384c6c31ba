"""Merge arithmetic on a CPU, compiled by numba: one pass over memory, in blocks that stay in cache.

Held to the bit to torch's arithmetic as mergekit uses it: float32 throughout, in the same order,
and a multiplication and an addition are fused only where torch fuses them (`addcmul`). Written in
chunks of torch, the same takes more than twice as long: torch walks through the cache once for
each operation (docs/merging.md has the measurement).

Tensors are one-dimensional, bfloat16 or float32; `mergelib.merging.fast.device` has the same
functions for a GPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload

from mergelib.merging.fast.masks import Mask

CHUNK = 1 << 20
"""Elements handed over at a time: what must be converted first takes a few MiB, not a model."""

NATIVE = (torch.bfloat16, torch.float32)
"""Types that are read where they lie; others are converted chunk by chunk."""

_BLOCK = 1024
"""Elements worked on at a time, so that all intermediate values stay in a core's L1 cache."""

_LANES = 64
"""Partial sums of a reduction: as many on every processor, so that the sum is the same."""

_INFINITY = np.uint32(0x7F800000)
"""The bits of float32 infinity; larger ones are those of NaN."""

_ROUNDS_TO_INFINITY = np.uint32(0x7F7F8000)
"""The bits of the smallest float32 that bfloat16 rounds to infinity."""

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
_fused = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


def linear(
    sources: Sequence[torch.Tensor],
    weights: Sequence[float],
    divisor: float | None,
    rounding: torch.dtype | None,
    out: torch.Tensor,
) -> bool:
    """Write sum(weight * source), divided where there is a divisor.

    Args:
        sources: (n,) each, of one type.
        weights: one a source.
        divisor: of the sum; None for none.
        rounding: bfloat16 to round the result to it; None to leave it.
        out: (n,), float32.

    Returns:
        Whether all written values are finite.
    """
    divided, by = divisor is not None, np.float32(divisor or 1)
    whole = _linear(_arrays(sources), _floats(weights), divided, by, _rounds(rounding), out.numpy())
    return bool(whole)


def interpolate(
    sources: Sequence[torch.Tensor],
    weights: Sequence[float],
    rounding: torch.dtype | None,
    out: torch.Tensor,
) -> bool:
    """Write weight * source + weight * source of two, each product rounded; see `linear`."""
    one, other = _arrays(sources)
    return bool(_interpolate(one, other, _floats(weights), _rounds(rounding), out.numpy()))


def task_vectors(
    base: torch.Tensor,
    sources: Sequence[torch.Tensor],
    masks: Sequence[Mask | None],
    weights: Sequence[float],
    elect: bool,
    divisor: float | None,
    scale: float,
    rounding: torch.dtype | None,
    out: torch.Tensor,
) -> bool:
    """Write base + scale * combined, combined of the weighted and masked differences to the base.

    Args:
        base: (n,), of the sources' type.
        sources: (n,) each, of one type.
        masks: what is kept of each source's difference to the base; None for all of it.
        weights: one a source.
        elect: sum only the differences that have the sign of the total, zero counted as positive
            (TIES, Yadav et al. 2023, steps 2 and 3).
        divisor: of the sum; None for none. With `elect`, each element's sum is divided by the
            weights that it is made of, whatever number is given here.
        scale: of the whole sum (mergekit's lambda).
        rounding: bfloat16 to round the result to it; None to leave it.
        out: (n,), float32.

    Returns:
        Whether all written values are finite.
    """
    start, *rest = _arrays([base, *sources])
    numbers, limits = _mask_arrays(masks)
    scales = _floats([1.0 if mask is None else mask.scale for mask in masks])
    divided, by = divisor is not None, np.float32(divisor or 1)
    settings: tuple[Any, ...] = (limits, scales, _floats(weights), elect, divided, by)
    ending: tuple[Any, ...] = (np.float32(scale), _rounds(rounding), out.numpy())
    if len(rest) == 2 and None not in masks:
        return bool(_two_masked(start, *rest, *numbers, *settings, *ending))
    return bool(_task_vectors(start, tuple(rest), numbers, *settings, *ending))


def absolute_sum(base: torch.Tensor, source: torch.Tensor, mask: Mask | None) -> float:
    """The sum of |source - base| over the elements that a mask keeps, added up in float64."""
    start, end = _arrays([base, source])
    numbers, limits = _mask_arrays([mask])
    return float(_absolute_sum(start, end, numbers[0], limits[0]))


# What numba takes ---------------------------------------------------------------------------------


def _array(tensor: torch.Tensor) -> Any:
    """A tensor's memory as numpy has it: bfloat16, which it has not, as bits."""
    return (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _arrays(tensors: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    return tuple(_array(tensor) for tensor in tensors)


def _floats(values: Sequence[float]) -> Any:
    return np.array(values, np.float32)


def _rounds(rounding: torch.dtype | None) -> bool:
    return rounding is torch.bfloat16


def _mask_arrays(masks: Sequence[Mask | None]) -> tuple[tuple[Any, ...], Any]:
    """Each mask's numbers, none of them where all is kept, and its limit in the same type."""
    kind = next((mask.numbers.dtype for mask in masks if mask is not None), torch.float32)
    everything = Mask(torch.empty(0, dtype=kind), 0)
    numbers = tuple((mask or everything).numbers.numpy() for mask in masks)
    return numbers, np.array([(mask or everything).limit for mask in masks], numbers[0].dtype)


# Whole chunks -------------------------------------------------------------------------------------
#
# A block of the result is worked out in `total`, which stays in the L1 cache, one pass for each
# source; the last pass rounds it, looks for values that are not finite, and writes it to memory.


@_compiled
def _linear(
    sources: Any, weights: Any, divided: bool, divisor: Any, rounding: bool, out: Any
) -> Any:
    block = np.empty(_BLOCK, np.float32)
    largest = np.uint32(0)
    for start in range(0, out.size, _BLOCK):
        written = out[start : start + _BLOCK]
        total = block[: written.size]
        total[:] = 0
        for n in range(len(sources)):
            _add_weighted(sources[n][start : start + _BLOCK], weights[n], total)
        if divided:
            _divide(total, divisor)
        largest = max(largest, _write(total, rounding, written))
    return largest < _INFINITY


@_compiled
def _interpolate(one: Any, other: Any, weights: Any, rounding: bool, out: Any) -> Any:
    block = np.empty(_BLOCK, np.float32)
    largest = np.uint32(0)
    for start in range(0, out.size, _BLOCK):
        written = out[start : start + _BLOCK]
        total = block[: written.size]
        stop = start + _BLOCK
        _weigh(one[start:stop], other[start:stop], weights[0], weights[1], total)
        largest = max(largest, _write(total, rounding, written))
    return largest < _INFINITY


@_compiled
def _task_vectors(
    base: Any,
    sources: Any,
    numbers: Any,
    limits: Any,
    scales: Any,
    weights: Any,
    elect: bool,
    divided: bool,
    divisor: Any,
    scale: Any,
    rounding: bool,
    out: Any,
) -> Any:
    parts = np.empty((len(sources), _BLOCK), np.float32)
    blocks = np.empty((3, _BLOCK), np.float32)
    largest = np.uint32(0)
    for start in range(0, out.size, _BLOCK):
        stop = start + _BLOCK
        written = out[start:stop]
        size = written.size
        total, agreed, agreeing = blocks[0, :size], blocks[1, :size], blocks[2, :size]
        start_values = base[start:stop]
        total[:] = 0
        for n in range(len(sources)):
            source, part = sources[n][start:stop], parts[n, :size]
            if numbers[n].size:
                kept = numbers[n][start:stop]
                _add_masked(
                    source, start_values, kept, limits[n], scales[n], weights[n], part, total
                )
            else:
                _add_task_vector(source, start_values, weights[n], part, total)
        if elect:
            agreed[:] = 0
            agreeing[:] = 0
            for n in range(len(sources)):
                _add_agreeing(parts[n, :size], total, weights[n], agreed, agreeing)
            if divided:
                _divide_each(agreed, agreeing)
            total = agreed
        elif divided:
            _divide(total, divisor)
        _add_to_base(start_values, scale, total)
        largest = max(largest, _write(total, rounding, written))
    return largest < _INFINITY


@_compiled
def _two_masked(
    base: Any,
    one: Any,
    other: Any,
    numbers_one: Any,
    numbers_other: Any,
    limits: Any,
    scales: Any,
    weights: Any,
    elect: bool,
    divided: bool,
    divisor: Any,
    scale: Any,
    rounding: bool,
    out: Any,
) -> Any:
    """The same for two masked sources, the common case, in one pass: all stays in registers."""
    block = np.empty(_BLOCK, np.float32)
    largest = np.uint32(0)
    for start in range(0, out.size, _BLOCK):
        stop = start + _BLOCK
        written = out[start:stop]
        total = block[: written.size]
        _combine_two(
            base[start:stop],
            one[start:stop],
            other[start:stop],
            numbers_one[start:stop],
            numbers_other[start:stop],
            limits,
            scales,
            weights,
            elect,
            divided,
            divisor,
            scale,
            total,
        )
        largest = max(largest, _write(total, rounding, written))
    return largest < _INFINITY


@_compiled
def _absolute_sum(base: Any, source: Any, numbers: Any, limit: Any) -> Any:
    total = np.float64(0)
    for start in range(0, base.size, _BLOCK):
        stop = start + _BLOCK
        if numbers.size:
            kept = numbers[start:stop]
            total += _sum_masked(source[start:stop], base[start:stop], kept, limit)
        else:
            total += _sum_all(source[start:stop], base[start:stop])
    return total


# Blocks -------------------------------------------------------------------------------------------


def _value(stored: Any) -> Any:
    """A stored element as float32."""
    raise NotImplementedError


@overload(_value, inline="always")
def _value_of_type(stored: Any) -> Callable[..., Any]:
    def from_bits(stored: Any) -> Any:
        return np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)

    def as_it_is(stored: Any) -> Any:
        return stored

    return from_bits if stored == numba.uint16 else as_it_is


@_fused
def _add_weighted(source: Any, weight: Any, total: Any) -> None:
    for i in range(total.size):
        total[i] += _value(source[i]) * weight


@_compiled
def _weigh(one: Any, other: Any, first: Any, second: Any, total: Any) -> None:
    for i in range(total.size):
        total[i] = _value(one[i]) * first + _value(other[i]) * second


@_compiled
def _add_task_vector(source: Any, base: Any, weight: Any, part: Any, total: Any) -> None:
    for i in range(total.size):
        value = (_value(source[i]) - _value(base[i])) * weight
        part[i] = value
        total[i] += value


@_compiled
def _add_masked(
    source: Any,
    base: Any,
    numbers: Any,
    limit: Any,
    scale: Any,
    weight: Any,
    part: Any,
    total: Any,
) -> None:
    for i in range(total.size):
        factor = np.float32(numbers[i] < limit) * scale
        value = (_value(source[i]) - _value(base[i])) * factor * weight
        part[i] = value
        total[i] += value


@_compiled
def _add_agreeing(part: Any, total: Any, weight: Any, agreed: Any, agreeing: Any) -> None:
    """Add the elements that have the total's sign, zero counted as positive, and their weight."""
    for i in range(total.size):
        sign = np.float32(total[i] >= 0) * np.float32(2) - np.float32(1)
        agrees = np.float32(part[i] * sign > 0)
        agreed[i] += part[i] * agrees
        agreeing[i] += weight * agrees


@_compiled
def _combine_two(
    base: Any,
    one: Any,
    other: Any,
    numbers_one: Any,
    numbers_other: Any,
    limits: Any,
    scales: Any,
    weights: Any,
    elect: bool,
    divided: bool,
    divisor: Any,
    scale: Any,
    total: Any,
) -> None:
    limit_one, limit_other = limits[0], limits[1]
    scale_one, scale_other = scales[0], scales[1]
    weight_one, weight_other = weights[0], weights[1]
    for i in range(total.size):
        start = _value(base[i])
        kept_one = np.float32(numbers_one[i] < limit_one) * scale_one
        kept_other = np.float32(numbers_other[i] < limit_other) * scale_other
        first = (_value(one[i]) - start) * kept_one * weight_one
        second = (_value(other[i]) - start) * kept_other * weight_other
        both = first + second
        if elect:
            sign = np.float32(both >= 0) * np.float32(2) - np.float32(1)
            first_agrees = np.float32(first * sign > 0)
            second_agrees = np.float32(second * sign > 0)
            both = first * first_agrees + second * second_agrees
            if divided:
                by = weight_one * first_agrees + weight_other * second_agrees
                both /= by + np.float32(by == 0)
        elif divided:
            both /= divisor
        total[i] = start + both * scale


@_compiled
def _sum_all(source: Any, base: Any) -> Any:
    lanes = np.zeros(_LANES, np.float32)
    whole = base.size // _LANES * _LANES
    for i in range(0, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] += abs(_value(source[i + lane]) - _value(base[i + lane]))
    for i in range(whole, base.size):
        lanes[0] += abs(_value(source[i]) - _value(base[i]))
    return _float64_sum(lanes)


@_compiled
def _sum_masked(source: Any, base: Any, numbers: Any, limit: Any) -> Any:
    lanes = np.zeros(_LANES, np.float32)
    whole = base.size // _LANES * _LANES
    for i in range(0, whole, _LANES):
        for lane in range(_LANES):
            at = i + lane
            kept = np.float32(numbers[at] < limit)
            lanes[lane] += abs(_value(source[at]) - _value(base[at])) * kept
    for i in range(whole, base.size):
        lanes[0] += abs(_value(source[i]) - _value(base[i])) * np.float32(numbers[i] < limit)
    return _float64_sum(lanes)


@_compiled
def _float64_sum(lanes: Any) -> Any:
    total = np.float64(0)
    for lane in range(lanes.size):
        total += np.float64(lanes[lane])
    return total


@_compiled
def _divide(total: Any, divisor: Any) -> None:
    for i in range(total.size):
        total[i] /= divisor


@_compiled
def _divide_each(total: Any, divisors: Any) -> None:
    for i in range(total.size):
        # Zero becomes one: nothing was added up there, and mergekit leaves it as it is.
        total[i] /= divisors[i] + np.float32(divisors[i] == 0)


@_compiled
def _add_to_base(base: Any, scale: Any, total: Any) -> None:
    for i in range(total.size):
        total[i] = _value(base[i]) + total[i] * scale


@_compiled
def _write(total: Any, rounding: bool, out: Any) -> Any:
    """Write a block, rounded to bfloat16 (ties to even) or not.

    Returns:
        The bits of the largest magnitude; at least infinity's where a value is not finite.
    """
    bits, written = total.view(np.uint32), out.view(np.uint32)
    largest = np.uint32(0)
    if not rounding:
        for i in range(bits.size):
            written[i] = bits[i]
            largest = max(largest, bits[i] & np.uint32(0x7FFFFFFF))
        return largest
    for i in range(bits.size):
        value = bits[i]
        largest = max(largest, value & np.uint32(0x7FFFFFFF))
        odd = (value >> np.uint32(16)) & np.uint32(1)
        written[i] = (value + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
    return _INFINITY if largest >= _ROUNDS_TO_INFINITY else largest
