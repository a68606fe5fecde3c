"""Machine vectors in numba kernels: several float32 at once, as many as a kernel asks for.

The loops of the dense CRF run over the labels of one pixel: too few for LLVM to vectorise a loop,
and it cannot know that the arrays do not overlap. Here a vector of float32 is a type of its own,
which kernels load, combine with + - * / (numbers stand on the left) and store. LLVM splits vectors
that are longer than the machine's registers. Indices are those of the flat array, unchecked.

A kernel learns the length of its vectors from a :class:`Width` among its arguments, and is compiled
once for each.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import (
    NativeValue,
    intrinsic,
    models,
    overload,
    register_model,
    typeof_impl,
    unbox,
)
from scipy.special import exprel

__all__ = [
    "Width",
    "add_inner",
    "add_outer",
    "add_scaled",
    "add_scaled_pair",
    "at",
    "equal",
    "exp",
    "floor",
    "highest",
    "highest_of_four",
    "lanes",
    "less",
    "load",
    "load_four",
    "maximum",
    "probe",
    "repeat_four",
    "spread",
    "store",
    "total",
    "total_of_four",
]

_FAST = ("fast",)
# Without arcp: the reciprocal estimate that it allows has other bits on other makers' CPUs, and
# gives 1 / 1 as a number below 1 on some.
_FAST_DIVISION = ("nnan", "ninf", "nsz", "contract", "afn", "reassoc")
_BUTTERFLY = 8  # lanes up to which all are joined with all at once


class Width:
    """Number of values of a vector: a number that kernels know when they are compiled."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes


class _WidthType(types.Type):
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Width({lanes})")


register_model(_WidthType)(models.OpaqueModel)


@typeof_impl.register(Width)
def _typeof_width(value: Width, _context: Any) -> _WidthType:
    return _WidthType(value.lanes)


@unbox(_WidthType)
def _unbox_width(_type: Any, _value: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())


class _LanesType(types.Type):
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Lanes({lanes})")


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _vector(kind.lanes))


def _vector(lanes: int) -> ir.VectorType:
    return ir.VectorType(ir.FloatType(), lanes)


def _inline(function: Callable) -> Any:
    """Make an intrinsic, with a type that says nothing of the first, hidden argument."""
    return intrinsic(function)


def _constant(like: Any, value: float) -> ir.Constant:
    return ir.Constant(like.type, [value] * like.type.count)


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any) -> Any:
    """Return the pointer to the values from ``index`` of the flat array on."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@_inline
def lanes(_typing, width):  # type: ignore[no-untyped-def]
    """Return the number of values of a :class:`Width`, a constant to the compiler."""

    def lower(_context, _builder, _signature, _args):  # type: ignore[no-untyped-def]
        return ir.Constant(ir.IntType(64), width.lanes)

    return types.int64(width), lower


@_inline
def at(_typing, array, index):  # type: ignore[no-untyped-def]
    """Return the element ``index`` of the flat array, as a scalar."""

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.intp), lower


@_inline
def load(_typing, array, index, width):  # type: ignore[no-untyped-def]
    """Return the values from ``index`` on of a contiguous float32 array."""

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = _vector(width.lanes)
        place = _place(context, builder, signature.args[0], args[0], args[1], vector)
        return builder.load(place, align=4)

    return _LanesType(width.lanes)(array, types.intp, width), lower


def _of_pixels(builder: Any, vector: Any, lanes: list[int]) -> Any:
    """Return the lanes of ``vector`` in a new order, some of them more than once."""
    order = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), order)


def _join(builder: Any, parts: list[Any]) -> Any:
    """Join vectors of one length, one after the other; their number is a power of two."""
    while len(parts) > 1:
        count = 2 * parts[0].type.count
        order = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(count)))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [builder.shuffle_vector(a, b, order) for a, b in pairs]
    return parts[0]


def _quarter(builder: Any, vector: Any, number: int) -> Any:
    width = vector.type.count // 4
    return _of_pixels(builder, vector, list(range(number * width, (number + 1) * width)))


@_inline
def load_four(_typing, array, index, stride, width):  # type: ignore[no-untyped-def]
    """Return four vectors, ``stride`` values apart, as one of four times the lanes."""

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = _vector(width.lanes)
        parts, start = [], args[1]
        for _ in range(4):
            place = _place(context, builder, signature.args[0], args[0], start, vector)
            parts.append(builder.load(place, align=4))
            start = builder.add(start, args[2])
        return _join(builder, parts)

    return _LanesType(4 * width.lanes)(array, types.intp, types.intp, width), lower


@_inline
def repeat_four(_typing, value):  # type: ignore[no-untyped-def]
    """Return a vector four times."""

    def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
        return _of_pixels(builder, args[0], list(range(value.lanes)) * 4)

    return _LanesType(4 * value.lanes)(value), lower


@_inline
def add_outer(_typing, four, weights, index, values, place, width):  # type: ignore[no-untyped-def]
    """Return ``four`` plus the vector at ``place`` of ``values``, times a weight in each quarter.

    The four weights stand from ``index`` of ``weights`` on. ``four`` is used up.
    """

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        four, _, _, values, place, _ = args
        kind = _vector(width.lanes)
        where = _place(context, builder, signature.args[3], values, place, kind)
        vector = _of_pixels(builder, builder.load(where, align=4), list(range(width.lanes)) * 4)
        weights = _stretch_four(context, builder, signature.args[1], args[1:3], width.lanes)
        return builder.fadd(four, builder.fmul(weights, vector, flags=_FAST), flags=_FAST)

    return four(four, weights, types.intp, values, types.intp, width), lower


@_inline
def add_inner(_typing, values, place, weights, index, four):  # type: ignore[no-untyped-def]
    """Add the weighted sum of the quarters of ``four`` to the vector at ``place`` of ``values``.

    The four weights stand from ``index`` of ``weights`` on.
    """
    lanes = four.lanes // 4

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        weights = _stretch_four(context, builder, signature.args[2], args[2:4], lanes)
        weighted = builder.fmul(weights, args[4], flags=_FAST)
        a, b, c, d = (_quarter(builder, weighted, k) for k in range(4))
        added = _sum(builder, _sum(builder, a, b), _sum(builder, c, d))
        values, place = args[:2]
        where = _place(context, builder, signature.args[0], values, place, added.type)
        builder.store(_sum(builder, builder.load(where, align=4), added), where, align=4)
        return context.get_dummy_value()

    return types.void(values, types.intp, weights, types.intp, four), lower


def _stretch_four(context: Any, builder: Any, array_type: Any, place: list[Any], lanes: int) -> Any:
    """Return four values of an array, each in a quarter of the lanes of four vectors."""
    array, index = place
    where = _place(context, builder, array_type, array, index, _vector(4))
    four = builder.load(where, align=4)
    return _of_pixels(builder, four, [k for k in range(4) for _ in range(lanes)])


@_inline
def add_scaled(_typing, vector, number, array, index, width):  # type: ignore[no-untyped-def]
    """Return ``vector``, which is used up, plus ``number`` times the values from ``index`` on."""

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector, number, array, index, _ = args
        where = _place(context, builder, signature.args[2], array, index, vector.type)
        added = builder.load(where, align=4)
        factor = _spread(builder, number, width.lanes)
        return _sum(builder, vector, builder.fmul(factor, added, flags=_FAST))

    return vector(vector, types.float32, array, types.intp, width), lower


@_inline
def add_scaled_pair(_typing, vector, number, array, first, second, width):  # type: ignore[no-untyped-def]
    """Return ``vector`` plus ``number`` times the sum of the values from two places on.

    ``vector`` is used up.
    """

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector, number, array, *places, _ = args
        pair = [
            builder.load(
                _place(context, builder, signature.args[2], array, place, vector.type), align=4
            )
            for place in places
        ]
        factor = _spread(builder, number, width.lanes)
        return _sum(builder, vector, builder.fmul(factor, _sum(builder, *pair), flags=_FAST))

    return vector(vector, types.float32, array, types.intp, types.intp, width), lower


@_inline
def store(_typing, array, index, value):  # type: ignore[no-untyped-def]
    """Set the values from ``index`` on of a contiguous float32 array."""

    def lower(context, builder, signature, args):  # type: ignore[no-untyped-def]
        array, index, vector = args
        place = _place(context, builder, signature.args[0], array, index, vector.type)
        builder.store(vector, place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), lower


@_inline
def spread(_typing, value, width):  # type: ignore[no-untyped-def]
    """Return the same number in every lane."""

    def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
        return _spread(builder, args[0], width.lanes)

    return _LanesType(width.lanes)(types.float32, width), lower


@_inline
def _spread_like(_typing, value, like):  # type: ignore[no-untyped-def]
    def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
        return _spread(builder, args[0], like.lanes)

    return like(types.float32, like), lower


def _spread(builder: Any, scalar: Any, lanes: int) -> Any:
    index = ir.IntType(32)
    first = builder.insert_element(ir.Constant(_vector(lanes), ir.Undefined), scalar, index(0))
    zeros = ir.Constant(ir.VectorType(index, lanes), [0] * lanes)
    return builder.shuffle_vector(first, first, zeros)


def _elementwise(combine: Callable) -> Callable:
    """Return an intrinsic that joins two vectors of one length lane by lane."""

    @_inline
    def join(_typing, a, b):  # type: ignore[no-untyped-def]
        def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
            return combine(builder, *args)

        return a(a, a), lower

    return join


def _overload_operator(
    function: Callable, instruction: str, flags: tuple[str, ...] = _FAST
) -> None:
    """Make ``function`` work between vectors, and with a number on the left."""
    combine = _elementwise(lambda builder, a, b: getattr(builder, instruction)(a, b, flags=flags))

    @overload(function, inline="always")
    def typed(a, b):  # type: ignore[no-untyped-def]
        if not isinstance(b, _LanesType):
            return None
        if isinstance(a, _LanesType):
            return lambda a, b: combine(a, b)
        return lambda a, b: combine(_spread_like(np.float32(a), b), b)


_overload_operator(operator.add, "fadd")
_overload_operator(operator.sub, "fsub")
_overload_operator(operator.mul, "fmul")
_overload_operator(operator.truediv, "fdiv", _FAST_DIVISION)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _compare(how: str) -> Callable:
    """Return the comparison of two vectors: 1 where it holds, 0 elsewhere."""

    def lower(builder: Any, a: Any, b: Any) -> Any:
        holds = builder.fcmp_ordered(how, a, b)
        return builder.select(holds, _constant(a, 1.0), _constant(a, 0.0))

    return lower


maximum = _elementwise(_larger)
less = _elementwise(_compare("<"))
equal = _elementwise(_compare("=="))


def _machine(builder: Any, name: str, vector: Any) -> Any:
    """Return the result of an LLVM intrinsic for one vector of float32."""
    kind = ir.FunctionType(vector.type, [vector.type])
    full = f"llvm.{name}.v{vector.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, full), [vector])


@_inline
def floor(_typing, value):  # type: ignore[no-untyped-def]
    """Return the largest whole number up to each value."""

    def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
        return _machine(builder, "floor", args[0])

    return value(value), lower


def _tree(builder: Any, vector: Any, join: Callable) -> Any:
    """Return all lanes of a vector joined into a scalar."""
    half = vector.type.count // 2
    while half:
        low, high = (
            _of_pixels(builder, vector, list(range(start, start + half))) for start in (0, half)
        )
        vector, half = join(builder, low, high), half // 2
    return builder.extract_element(vector, ir.IntType(32)(0))


def _across(join: Callable) -> Callable:
    """Return an intrinsic that joins the values of one vector."""

    @_inline
    def reduce(_typing, value):  # type: ignore[no-untyped-def]
        def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
            return _tree(builder, args[0], join)

        return types.float32(value), lower

    return reduce


def _across_quarters(join: Callable) -> Callable:
    """Return an intrinsic that puts the joined values of each quarter in all of its lanes."""

    @_inline
    def reduce(_typing, value):  # type: ignore[no-untyped-def]
        width = value.lanes // 4

        def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
            if width > _BUTTERFLY:
                quarters = [_quarter(builder, args[0], k) for k in range(4)]
                joined = [_tree(builder, quarter, join) for quarter in quarters]
                return _join(builder, [_spread(builder, number, width) for number in joined])
            vector, distance = args[0], 1
            while distance < width:
                partners = [lane ^ distance for lane in range(value.lanes)]
                vector = join(builder, vector, _of_pixels(builder, vector, partners))
                distance *= 2
            return vector

        return value(value), lower

    return reduce


def _sum(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b, flags=_FAST)


highest = _across(_larger)
total = _across(_sum)
highest_of_four = _across_quarters(_larger)
total_of_four = _across_quarters(_sum)

# 2^x on [-1/2, 1/2] as 1 + x p(x), relative error 2e-7 in float32: exactly 1 at 0.
_LOG_2 = float(np.log(2))
_SLOPE = np.polynomial.Chebyshev.interpolate(
    lambda x: _LOG_2 * exprel(x * _LOG_2), 4, domain=[-0.5, 0.5]
)
_POWERS = [1.0, *_SLOPE.convert(kind=np.polynomial.Polynomial).coef.tolist()]
_SMALLEST_EXPONENT = -96.0  # below 2^-96 the result is 0, so that products with it stay normal


@_inline
def exp(_typing, value):  # type: ignore[no-untyped-def]
    """Return the exponential of values up to 80; 0 below exp(-66)."""

    def lower(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
        def constant(number: float) -> ir.Constant:
            return _constant(args[0], float(np.float32(number)))

        integers = ir.VectorType(ir.IntType(32), value.lanes)
        exponent = builder.fmul(args[0], constant(1 / np.log(2)), flags=_FAST)
        clamped = _larger(builder, exponent, constant(_SMALLEST_EXPONENT))
        whole = _machine(builder, "rint", clamped)
        rest = builder.fsub(clamped, whole, flags=_FAST)
        power = constant(_POWERS[-1])
        for coefficient in _POWERS[-2::-1]:
            scaled = builder.fmul(power, rest, flags=_FAST)
            power = builder.fadd(scaled, constant(coefficient), flags=_FAST)
        biased = builder.add(
            builder.fptosi(whole, integers), ir.Constant(integers, [127] * value.lanes)
        )
        bits = builder.shl(biased, ir.Constant(integers, [23] * value.lanes))
        result = builder.fmul(power, builder.bitcast(bits, args[0].type), flags=_FAST)
        kept = builder.fcmp_ordered(">", exponent, constant(_SMALLEST_EXPONENT))
        return builder.select(kept, result, constant(0.0))

    return value(value), lower


def probe() -> None:
    """Compile and run a small kernel, of every kind of instruction that is used here.

    Raises what numba and LLVM raise, RuntimeError at a wrong result. The kernel is not cached: that
    an older numba compiled it says nothing of this one.
    """

    @njit
    def kernel(ones, target, width):  # type: ignore[no-untyped-def]
        four = load_four(ones, 0, 4, width)
        four = add_outer(exp(four - highest_of_four(four)), ones, 0, ones, 0, width)
        store(target, 0, np.float32(4) * (four / total_of_four(four)))
        return total(floor(load(target, 0, width)))

    found = kernel(np.ones(16, np.float32), np.zeros(16, np.float32), Width(4))
    if found != 4:
        raise RuntimeError(f"machine vectors of ones sum up to {found}, not to 4")
