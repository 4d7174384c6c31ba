"""Weighted sums of models, in one pass from memory to memory: a loop written out for LLVM.

Sixteen numbers, a line of the cache, are worked out in registers, rounded, looked at for values
that are not finite, and stored past the caches. An ordinary store would first read the line that
it is about to overwrite, which is a third of all bytes that such a merge moves; and a compiler does
not make one vector of such stores unless it is told where they are aligned. numba has no vectors,
hence the instructions. They are those of a vector of sixteen on any processor: LLVM splits them.

Apart from `loops`, and without a part of it: numba's cache on the disk notices a change of the
file that a function is in, not of one that it takes something from.
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils as untyped
from numba.extending import intrinsic

_LINE = 16
"""Numbers of float32 in a line of the cache."""

_INFINITY = np.uint32(0x7F800000)
"""The bits of float32 infinity; larger ones are those of NaN."""

_ROUNDS_TO_INFINITY = np.uint32(0x7F7F8000)
"""The bits of the smallest float32 that bfloat16 rounds to infinity."""

_STREAMS = platform.machine().lower() in ("x86_64", "amd64")
"""Whether this is a processor of which it is known how to wait for stores past the caches."""

cgutils: Any = untyped
_SHORT, _WORD, _LONG, _FLOAT = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def _compiled(loop: Any) -> Any:
    """Compile a loop, kept on the disk for the next process where a place for it can be written."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(loop)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(loop)


@dataclass(frozen=True)
class _Sum:
    """The instructions of a weighted sum; what it is made of are values that LLVM knows.

    Attributes:
        fused: whether each product is added without being rounded first (torch's `addcmul`).
        sources: where each source begins.
        weights: one a source.
        divides: whether the sum is divided.
        divisor: by what.
        rounding: whether the result is rounded to bfloat16, ties to even.
        out: where the result begins.
        largest: where the bits of the largest magnitude are kept.
    """

    builder: Any
    fused: bool
    sources: Sequence[Any]
    weights: Sequence[Any]
    divides: Any
    divisor: Any
    rounding: Any
    out: Any
    largest: Any

    def loop(self, start: Any, stop: Any, width: int, streamed: bool) -> None:
        """Write from one index to another, `width` elements at a time.

        Streamed ones must begin at a multiple of 64 bytes.
        """
        builder = self.builder
        floats, words = ir.VectorType(_FLOAT, width), ir.VectorType(_WORD, width)
        weights = [self._spread(weight, floats) for weight in self.weights]
        divisor = self._spread(self.divisor, floats)
        most = cgutils.alloca_once(builder, words)
        builder.store(words([0] * width), most)
        value = cgutils.alloca_once(builder, floats)
        bits = builder.bitcast(value, words.as_pointer())
        with cgutils.for_range_slice(builder, start, stop, _LONG(width), _LONG) as (at, _):
            builder.store(self._products(at, weights, floats), value)
            with builder.if_then(self.divides):
                builder.store(builder.fdiv(builder.load(value), divisor), value)
            word = builder.load(bits)
            magnitude = builder.and_(word, words([0x7FFFFFFF] * width))
            builder.store(self._larger(magnitude, builder.load(most)), most)
            with builder.if_then(self.rounding):
                odd = builder.and_(builder.lshr(word, words([16] * width)), words([1] * width))
                half = builder.add(odd, words([0x7FFF] * width))
                rounded = builder.and_(builder.add(word, half), words([0xFFFF0000] * width))
                builder.store(rounded, bits)
            place = builder.bitcast(builder.gep(self.out, [at]), floats.as_pointer())
            stored = builder.store(builder.load(value), place, align=64 if streamed else 4)
            if streamed:
                stored.set_metadata("nontemporal", builder.module.add_metadata([_WORD(1)]))
        found = builder.load(most)
        for lane in range(width):
            one = builder.extract_element(found, _WORD(lane))
            builder.store(self._larger(one, builder.load(self.largest)), self.largest)

    def _products(self, at: Any, weights: Sequence[Any], floats: Any) -> Any:
        builder = self.builder
        fused = _function(builder, f"llvm.fma.v{floats.count}f32", floats, [floats] * 3)
        total = floats([0.0] * floats.count) if self.fused else None
        for source, weight in zip(self.sources, weights, strict=True):
            value = self._load(source, at, floats)
            if self.fused:
                total = builder.call(fused, [value, weight, total])
            else:
                product = builder.fmul(value, weight)
                total = product if total is None else builder.fadd(total, product)
        return total

    def _load(self, source: Any, at: Any, floats: Any) -> Any:
        """Elements as float32; one of bfloat16 is the upper half of it."""
        builder, width = self.builder, floats.count
        place = builder.gep(source, [at])
        if source.type.pointee == _FLOAT:
            return builder.load(builder.bitcast(place, floats.as_pointer()), align=4)
        shorts, words = ir.VectorType(_SHORT, width), ir.VectorType(_WORD, width)
        stored = builder.load(builder.bitcast(place, shorts.as_pointer()), align=2)
        upper = builder.shl(builder.zext(stored, words), words([16] * width))
        return builder.bitcast(upper, floats)

    def _spread(self, value: Any, kind: Any) -> Any:
        vector = ir.Constant(kind, ir.Undefined)
        for lane in range(kind.count):
            vector = self.builder.insert_element(vector, value, _WORD(lane))
        return vector

    def _larger(self, one: Any, other: Any) -> Any:
        return self.builder.select(self.builder.icmp_unsigned(">", one, other), one, other)


def _function(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _weighted_sum(fused: bool, streamed: bool) -> Any:
    """A function for loops: (sources, weights, divides, divisor, rounding, out).

    It writes `out` and returns the bits of the largest magnitude before rounding. `_Sum` says what
    the arguments are, here as arrays, all of them contiguous.

    Args:
        fused: see `_Sum`.
        streamed: whether the result is stored past the caches.
    """

    def typed(
        _context: Any,
        sources: Any,
        weights: Any,
        divides: Any,
        divisor: Any,
        rounding: Any,
        out: Any,
    ) -> tuple[Any, Callable[..., Any]]:
        kinds = (sources, weights, divides, divisor, rounding, out)
        return numba.uint32(*kinds), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of_sources, of_weights, *_, of_out = signature.args
        sources, weights, divides, divisor, rounding, out = arguments

        def array(kind: Any, value: Any) -> Any:
            return context.make_array(kind)(context, builder, value)

        rows = [
            array(kind, builder.extract_value(sources, n)).data for n, kind in enumerate(of_sources)
        ]
        factors = array(of_weights, weights).data
        target = array(of_out, out)
        largest = cgutils.alloca_once(builder, _WORD)
        builder.store(_WORD(0), largest)
        written = _Sum(
            builder,
            fused,
            rows,
            [builder.load(builder.gep(factors, [_LONG(n)])) for n in range(len(rows))],
            divides,
            divisor,
            rounding,
            target.data,
            largest,
        )
        size, start = target.nitems, _LONG(0)
        if streamed:
            before = builder.neg(builder.ptrtoint(target.data, _LONG))
            before = builder.lshr(builder.and_(before, _LONG(63)), _LONG(2))
            start = builder.select(builder.icmp_signed("<", before, size), before, size)
        lines = builder.and_(builder.sub(size, start), _LONG(-_LINE))
        stop = builder.add(start, lines)
        written.loop(_LONG(0), start, 1, False)
        written.loop(start, stop, _LINE, streamed)
        written.loop(stop, size, 1, False)
        if streamed and _STREAMS:
            # Another thread that is told of the result must find it in memory.
            fence = _function(builder, "llvm.x86.sse.sfence", ir.VoidType(), [])
            builder.call(fence, [])
        return builder.load(largest)

    return intrinsic(typed)


_mean_streamed, _mean_kept = _weighted_sum(True, True), _weighted_sum(True, False)
_two_streamed, _two_kept = _weighted_sum(False, True), _weighted_sum(False, False)


@_compiled
def linear(
    sources: Any,
    weights: Any,
    divided: bool,
    divisor: Any,
    rounding: bool,
    streamed: bool,
    out: Any,
) -> Any:
    """Write a weighted sum, divided or not; returns whether all of it is finite."""
    divides = divided and divisor != 1
    if streamed and _STREAMS:
        largest = _mean_streamed(sources, weights, divides, divisor, rounding, out)
    else:
        largest = _mean_kept(sources, weights, divides, divisor, rounding, out)
    return largest < (_ROUNDS_TO_INFINITY if rounding else _INFINITY)


@_compiled
def interpolate(sources: Any, weights: Any, rounding: bool, streamed: bool, out: Any) -> Any:
    """Write a weighted sum of two, each product rounded; returns whether all of it is finite."""
    one = np.float32(1)
    if streamed and _STREAMS:
        largest = _two_streamed(sources, weights, False, one, rounding, out)
    else:
        largest = _two_kept(sources, weights, False, one, rounding, out)
    return largest < (_ROUNDS_TO_INFINITY if rounding else _INFINITY)
