"""The loops of task vectors, compiled by numba: one pass over memory, in blocks that stay in cache.

A block of the result is worked out in `total`, which stays in the L1 cache, one pass for each
source; the last pass rounds it, looks for values that are not finite, and writes it to memory.
Comparisons are multiplied with: a branch would keep a loop from being vectorised.

Arrays hold float32, or bfloat16 as its bits, in uint16. `mergelib.merging.fast.compiled` says what
the functions take.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import overload

_BLOCK = 1024
"""Elements worked on at a time, so that all intermediate values stay in a core's L1 cache."""

_LANES = 64
"""Partial sums of a reduction: as many on every processor, so that the sum is the same."""

_INFINITY = np.uint32(0x7F800000)
"""The bits of float32 infinity; larger ones are those of NaN."""

_ROUNDS_TO_INFINITY = np.uint32(0x7F7F8000)
"""The bits of the smallest float32 that bfloat16 rounds to infinity."""


def _compiled(loop: Any) -> Any:
    """Compile a loop, kept on the disk for the next process where a place for it can be written."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(loop)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(loop)


@_compiled
def task_vectors(
    base: Any, sources: Any, numbers: Any, settings: Any, rounding: bool, out: Any
) -> Any:
    """Write base + scale * combined task vectors; returns whether all of it is finite.

    The settings are limits, scales, weights, elect, divided, divisor and scale.
    """
    limits, scales, weights, elect, divided, divisor, scale = settings
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
def two_masked(
    base: Any, sources: Any, numbers: Any, settings: Any, rounding: bool, out: Any
) -> Any:
    """The same for two masked sources, the common case, in one pass: all stays in registers."""
    block = np.empty(_BLOCK, np.float32)
    one, other = sources
    of_one, of_other = numbers
    largest = np.uint32(0)
    for start in range(0, out.size, _BLOCK):
        stop = start + _BLOCK
        written = out[start:stop]
        total = block[: written.size]
        parts = one[start:stop], other[start:stop]
        kept = of_one[start:stop], of_other[start:stop]
        _combine_two(base[start:stop], parts, kept, settings, total)
        largest = max(largest, _write(total, rounding, written))
    return largest < _INFINITY


@_compiled
def absolute_sum(base: Any, source: Any, numbers: Any, limit: Any) -> Any:
    """Add up a task vector's magnitudes: in float32 within a block, in float64 over the blocks."""
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
def _combine_two(base: Any, parts: Any, numbers: Any, settings: Any, total: Any) -> None:
    limits, scales, weights, elect, divided, divisor, scale = settings
    one, other = parts
    numbers_one, numbers_other = numbers
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
