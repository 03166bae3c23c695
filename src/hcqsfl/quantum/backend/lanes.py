"""Vectors of samples for Numba: one 64-byte vector holds the same amplitude of 16 (float32) or 8 (float64) samples.

Numba has no vector type and its loops over short rows do not vectorise in place; with this type a kernel says which
numbers move together, and LLVM keeps them in registers. A vector is loaded from a flat array, added, multiplied, and
stored; the compiler may contract a product and a sum into one fused operation.
"""

import operator
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

WIDTH = {types.float32: 16, types.float64: 8}
CONTRACT = ("contract",)


class Lanes(types.Type):
    """The type of a vector of ``WIDTH[scalar]`` numbers."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar, self.width = scalar, WIDTH[scalar]
        super().__init__(name=f"Lanes({self.width} x {scalar})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, _vector(fe_type))


def _vector(lanes: Lanes) -> ir.VectorType:
    scalar = ir.FloatType() if lanes.scalar == types.float32 else ir.DoubleType()
    return ir.VectorType(scalar, lanes.width)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, lanes: Lanes) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _vector(lanes).as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """Return the lanes that begin at ``array[index]``."""
    lanes = Lanes(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], lanes)
        return builder.load(pointer, align=lanes.scalar.bitwidth // 8)

    return lanes(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the lanes to ``array[index]`` and the places after it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], value)
        builder.store(arguments[2], pointer, align=value.scalar.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def splat(typing: Any, scalar: Any) -> Any:
    """Return the lanes that all hold ``scalar``."""
    lanes = Lanes(scalar)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = _vector(lanes)
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes.width), None)
        return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

    return lanes(scalar), generate


@intrinsic
def total(typing: Any, value: Any) -> Any:
    """Return the sum of the lanes in double precision, first to last."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = ir.Constant(ir.DoubleType(), 0.0)
        for lane in range(value.width):
            one = builder.extract_element(arguments[0], ir.Constant(ir.IntType(32), lane))
            if value.scalar == types.float32:
                one = builder.fpext(one, ir.DoubleType())
            result = builder.fadd(result, one)
        return result

    return types.float64(value), generate


def _arithmetic(operation: Any, instruction: str) -> None:
    @infer_global(operation)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Lanes) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(operation, Lanes, Lanes)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args, flags=CONTRACT)


for _operation, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _arithmetic(_operation, _instruction)
