"""Eight float32 at once in numba kernels.

The loops of the dense CRF run over the labels of one pixel: too few for LLVM to vectorise a loop,
and it cannot know that the arrays do not overlap. Here a machine vector of eight values is a type
of its own, which kernels load, combine with + - * (numbers stand on the left) and store. Indices
are those of the flat array, and are not checked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

__all__ = ["LANES", "exp", "highest", "load", "maximum", "spread", "store", "total"]

LANES = 8

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_FAST = ("fast",)


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


_lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _inline(function: Callable) -> Any:
    """Numba's ``intrinsic``, with a type that says nothing of the first, hidden argument."""
    return intrinsic(function)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * LANES)


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to the eight values from ``index`` of the flat array on."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


@_inline
def load(_typing, array, index):  # type: ignore[no-untyped-def]
    """Values ``array[index : index + 8]`` of a contiguous float32 array."""

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        place = _place(context, builder, signature.args[0], *args)
        return builder.load(place, align=4)

    return _lanes(array, types.intp), lower


@_inline
def store(_typing, array, index, value):  # type: ignore[no-untyped-def]
    """Set ``array[index : index + 8]`` of a contiguous float32 array to ``value``."""

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        place = _place(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), lower


@_inline
def spread(_typing, value):  # type: ignore[no-untyped-def]
    """Eight times the same number."""

    def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
        return _spread(builder, args[0])

    return _lanes(types.float32), lower


def _spread(builder: Any, scalar: Any) -> Any:
    index = ir.IntType(32)
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, index(0))
    zeros = ir.Constant(ir.VectorType(index, LANES), [0] * LANES)
    return builder.shuffle_vector(first, first, zeros)


def _binary(instruction: str) -> Callable:
    @_inline
    def combine(_typing, a, b):  # type: ignore[no-untyped-def]
        def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
            return getattr(builder, instruction)(*args, flags=_FAST)

        return _lanes(_lanes, _lanes), lower

    return combine


def _overload_operator(function: Callable, instruction: str) -> None:
    """Make ``function`` work between lanes, and with a number on the left."""
    combine = _binary(instruction)

    @overload(function)
    def typed(a, b):  # type: ignore[no-untyped-def]
        if b is not _lanes:
            return None
        if a is _lanes:
            return lambda a, b: combine(a, b)
        return lambda a, b: combine(spread(np.float32(a)), b)


_overload_operator(operator.add, "fadd")
_overload_operator(operator.sub, "fsub")
_overload_operator(operator.mul, "fmul")


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@_inline
def maximum(_typing, a, b):  # type: ignore[no-untyped-def]
    """Larger value of each lane."""

    def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
        return _larger(builder, *args)

    return _lanes(_lanes, _lanes), lower


def _across(join: Callable) -> Callable:
    """Intrinsic that joins the eight values of one vector in a tree."""

    @_inline
    def reduce(_typing, value):  # type: ignore[no-untyped-def]
        def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
            index = ir.IntType(32)
            vector, half = args[0], LANES // 2
            while half:
                lanes = [(lane + half) % LANES for lane in range(LANES)]
                moved = builder.shuffle_vector(
                    vector, vector, ir.Constant(ir.VectorType(index, LANES), lanes)
                )
                vector, half = join(builder, vector, moved), half // 2
            return builder.extract_element(vector, index(0))

        return types.float32(_lanes), lower

    return reduce


highest = _across(_larger)
total = _across(lambda builder, a, b: builder.fadd(a, b, flags=_FAST))

# 2^x on [-1/2, 1/2], relative error 2e-7 in float32: the Taylor coefficients ln(2)^n / n!.
_POWERS = [float(np.log(2.0) ** n / np.prod(np.arange(1.0, n + 1))) for n in range(7)]
_SMALLEST_EXPONENT = -96.0  # below 2^-96 the result is 0, so that products with it stay normal


@_inline
def exp(_typing, value):  # type: ignore[no-untyped-def]
    """Exponential of values <= 0; 0 below exp(-66)."""

    def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
        integers = ir.VectorType(ir.IntType(32), LANES)
        exponent = builder.fmul(args[0], _constant(float(np.float32(1 / np.log(2)))), flags=_FAST)
        clamped = _larger(builder, exponent, _constant(_SMALLEST_EXPONENT))
        shifted = builder.fsub(clamped, _constant(0.5))
        whole = builder.fptosi(shifted, integers)  # rounds toward zero: to nearest for x <= 0
        rest = builder.fsub(clamped, builder.sitofp(whole, _VECTOR), flags=_FAST)
        power = _constant(float(np.float32(_POWERS[-1])))
        for coefficient in _POWERS[-2::-1]:
            scaled = builder.fmul(power, rest, flags=_FAST)
            power = builder.fadd(scaled, _constant(float(np.float32(coefficient))), flags=_FAST)
        biased = builder.add(whole, ir.Constant(integers, [127] * LANES))
        scale = builder.bitcast(builder.shl(biased, ir.Constant(integers, [23] * LANES)), _VECTOR)
        result = builder.fmul(power, scale, flags=_FAST)
        kept = builder.fcmp_ordered(">", exponent, _constant(_SMALLEST_EXPONENT))
        return builder.select(kept, result, _constant(0.0))

    return _lanes(_lanes), lower
