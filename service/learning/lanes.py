"""Eight numbers of float32 in a vector register, for compiled functions. Importing this module needs numba.

numba has no such type, and LLVM finds only a part of the vector operations in loops over numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

functions: Any = cgutils


def intrinsic(function: Callable[..., Any]) -> Any:
    """Return a function for compiled code, of which `function` returns the type and what writes its code."""
    return extending.intrinsic(function)


LANES = 8
VECTOR = ir.VectorType(ir.FloatType(), LANES)


class VectorType(types.Type):
    """The type of a vector."""


@extending.register_model(VectorType)
class VectorModel(extending.models.PrimitiveModel):
    """A vector is a value of LLVM."""

    def __init__(self, manager: Any, of_type: Any) -> None:
        super().__init__(manager, of_type, VECTOR)  # type: ignore[no-untyped-call]


vector = VectorType("eight float32")


def of_vectors(generate: Callable[..., Any], n_operands: int, result: Any = vector) -> Any:
    """Return what numba wants of an operation on vectors whose code is written by `generate(builder, *operands)`."""
    return result(*[vector] * n_operands), lambda _context, builder, _signature, values: generate(builder, *values)


def pick(builder: Any, one: Any, other: Any, lanes: Sequence[int]) -> Any:
    """Return a vector of these lanes of two vectors, numbered through."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(lanes)))


@intrinsic
def load(_context: Any, array: Any, _start: Any) -> Any:
    """Return the numbers of an array (n,) from `start` on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        place = builder.bitcast(builder.gep(data, [values[1]]), VECTOR.as_pointer())
        return builder.load(place, align=4)

    return vector(array, types.uint64), generate


@intrinsic
def spread(_context: Any, _number: Any) -> Any:
    """Return a vector of one number."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), values[0], ir.Constant(ir.IntType(32), 0))
        return pick(builder, first, first, [0] * LANES)

    return vector(types.float32), generate


@intrinsic
def add_product(_context: Any, _x: Any, _y: Any, _total: Any) -> Any:
    """Return x * y + total, rounded once or twice."""

    def generate(builder: Any, *operands: Any) -> Any:
        name, function_type = f"llvm.fmuladd.v{LANES}f32", ir.FunctionType(VECTOR, [VECTOR] * 3)
        return builder.call(functions.get_or_insert_function(builder.module, function_type, name), operands)

    return of_vectors(generate, 3)


@intrinsic
def add(_context: Any, _x: Any, _y: Any) -> Any:
    """Return x + y."""
    return of_vectors(lambda builder, x, y: builder.fadd(x, y), 2)


@intrinsic
def subtract(_context: Any, _x: Any, _y: Any) -> Any:
    """Return x - y."""
    return of_vectors(lambda builder, x, y: builder.fsub(x, y), 2)


@intrinsic
def lesser(_context: Any, _x: Any, _y: Any) -> Any:
    """Return the lesser of each two numbers, `y` if one is NaN."""
    return of_vectors(lambda builder, x, y: builder.select(builder.fcmp_ordered("<", x, y), x, y), 2)


@intrinsic
def greater(_context: Any, _x: Any, _y: Any) -> Any:
    """Return the greater of each two numbers, `y` if one is NaN."""
    return of_vectors(lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y), 2)


@intrinsic
def not_greater(_context: Any, _x: Any, _y: Any) -> Any:
    """Return a bit for each lane: whether x > y is false."""

    def generate(builder: Any, x: Any, y: Any) -> Any:
        return builder.bitcast(builder.fcmp_unordered("<=", x, y), ir.IntType(LANES))

    return of_vectors(generate, 2, types.uint8)


@intrinsic
def swap_halves(_context: Any, _x: Any) -> Any:
    """Return a vector with its last four numbers first."""
    return of_vectors(lambda builder, x: pick(builder, x, x, [4, 5, 6, 7, 0, 1, 2, 3]), 1)


HALVES = (
    ([0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]),
    ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
    ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
)
"""The lanes of two vectors that are added up in each of three steps, so that eight vectors become one of their sums."""


@intrinsic
def sums(_context: Any, _a: Any, _b: Any, _c: Any, _d: Any, _e: Any, _f: Any, _g: Any, _h: Any) -> Any:
    """Return a vector of the sums of eight vectors."""

    def generate(builder: Any, *vectors: Any) -> Any:
        for some, others in HALVES:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = tuple(builder.fadd(pick(builder, x, y, some), pick(builder, x, y, others)) for x, y in pairs)
        return vectors[0]

    return of_vectors(generate, LANES)


@intrinsic
def first_lane(_context: Any, _x: Any) -> Any:
    """Return the first number."""
    return of_vectors(lambda builder, x: builder.extract_element(x, ir.Constant(ir.IntType(32), 0)), 1, types.float32)
