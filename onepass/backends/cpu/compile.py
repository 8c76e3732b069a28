"""Compile a kernel's source with Numba to LLVM's intermediate representation. The one file that imports Numba.

The words that the emitted source uses are defined here. Loads and stores say which array they belong to, so that LLVM
knows that a kernel's arrays do not overlap and turns its loop into vector instructions without asking at run time.
"""

# Numba replaces the first argument of an intrinsic, which no type checker knows.
# pyright: reportCallIssue=false

from __future__ import annotations

import re
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import cfunc, float32, float64, int64, njit, prange, types
from numba.core import cgutils, config
from numba.extending import intrinsic

_MOST_ARRAYS = 16
_INT = ir.IntType(64)
_FLOAT, _DOUBLE, _HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()
# Contraction and reciprocals round differently; nothing here assumes that NaN and infinity do not occur.
_FASTMATH = {"contract", "nsz", "arcp"}


def _pointer(builder: Any, base: Any, index: Any, kind: Any) -> Any:
    return builder.gep(builder.inttoptr(base, kind.as_pointer()), [index])


def _belongs_to(builder: Any, instruction: Any, slot: int) -> Any:
    """Mark a load or store as one of array ``slot``, which overlaps with no other array."""
    module = builder.module
    scopes = getattr(module, "onepass_scopes", None)
    if scopes is None:
        domain = module.add_metadata([ir.MetaDataString(module, "onepass")])
        each = [module.add_metadata([ir.MetaDataString(module, f"array {i}"), domain]) for i in range(_MOST_ARRAYS)]
        scopes = [
            (module.add_metadata([scope]), module.add_metadata([other for other in each if other is not scope]))
            for scope in each
        ]
        module.onepass_scopes = scopes
    own, others = scopes[slot]
    instruction.set_metadata("alias.scope", own)
    instruction.set_metadata("noalias", others)
    return instruction


# Each storage type: what lies in memory, what Numba sees, and the conversions between them.


def _bf16_to_float(builder: Any, bits: Any) -> Any:
    wide = builder.shl(builder.zext(bits, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
    return builder.bitcast(wide, _FLOAT)


def _float_to_bf16(builder: Any, x: Any) -> Any:
    """Round to the nearest, ties to even; a NaN stays one."""
    word = ir.IntType(32)
    bits = builder.bitcast(x, word)
    odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
    rounded = builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF)))
    quiet = builder.or_(bits, ir.Constant(word, 0x400000))
    chosen = builder.select(builder.fcmp_unordered("uno", x, x), quiet, rounded)
    return builder.trunc(builder.lshr(chosen, ir.Constant(word, 16)), ir.IntType(16))


_FORMATS: dict[str, tuple[Any, Any, Any, Any]] = {
    "f32": (_FLOAT, float32, lambda b, x: x, lambda b, x: x),
    "f64": (_DOUBLE, float64, lambda b, x: x, lambda b, x: x),
    "bf16": (ir.IntType(16), float32, _bf16_to_float, _float_to_bf16),
    "f16": (_HALF, float32, lambda b, x: b.fpext(x, _FLOAT), lambda b, x: b.fptrunc(x, _HALF)),
}


def _make_load(storage: str, slot: int) -> Any:
    kind, seen, widen, _ = _FORMATS[storage]

    @intrinsic
    def load(typingctx: Any, base: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x = _belongs_to(builder, builder.load(_pointer(builder, args[0], args[1], kind)), slot)
            return widen(builder, x)

        return seen(int64, int64), generate

    return load


def _make_store(storage: str, slot: int) -> Any:
    kind, seen, _, narrow = _FORMATS[storage]

    @intrinsic
    def store(typingctx: Any, base: Any, index: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x = narrow(builder, context.cast(builder, args[2], signature.args[2], seen))
            _belongs_to(builder, builder.store(x, _pointer(builder, args[0], args[1], kind)), slot)
            return context.get_dummy_value()

        return types.void(int64, int64, x), generate

    return store


def _make_reader(kind: Any, seen: Any) -> Any:
    @intrinsic
    def read(typingctx: Any, base: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(_pointer(builder, args[0], args[1], kind))

        return seen(int64, int64), generate

    return read


@intrinsic
def put(typingctx: Any, base: Any, index: Any, x: Any) -> Any:
    """Store a float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(builder, args[0], args[1], _DOUBLE))
        return context.get_dummy_value()

    return types.void(int64, int64, float64), generate


@intrinsic
def claim(typingctx: Any, job: Any) -> Any:
    """The number of the next chunk that no thread has taken."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        counter = builder.inttoptr(args[0], _INT.as_pointer())
        return builder.atomic_rmw("add", counter, ir.Constant(_INT, 1), "monotonic")

    return int64(int64), generate


@intrinsic
def accumulate(typingctx: Any, total: Any, x: Any) -> Any:
    """``total + x`` in float64, in whatever order vectorises."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = context.cast(builder, args[1], signature.args[1], float64)
        return builder.fadd(args[0], wide, flags=("reassoc",))

    return float64(float64, x), generate


@intrinsic
def select(typingctx: Any, condition: Any, a: Any, b: Any) -> Any:
    """``a`` or ``b``, without a branch."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bit = cgutils.as_bool_bit(builder, args[0])
        both = [context.cast(builder, arg, kind, a) for arg, kind in zip(args[1:], signature.args[1:], strict=True)]
        return builder.select(bit, *both)

    return a(condition, a, b), generate


@intrinsic
def call(typingctx: Any, function: Any, job: Any) -> Any:
    """Call a kernel by its address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_INT])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(int64, int64), generate


@njit(inline="always")
def maximum(a: Any, b: Any) -> Any:
    return select((a > b) | (a != a), a, b)


@njit(inline="always")
def minimum(a: Any, b: Any) -> Any:
    return select((a < b) | (a != a), a, b)


@njit(inline="always")
def absolute(x: Any) -> Any:
    return abs(x)


@njit(inline="always")
def power(a: Any, b: Any) -> Any:
    return a**b


def _words(source: str, real: str) -> dict[str, Any]:
    """The names that emitted source uses, for arithmetic in ``real``."""
    number = np.float64 if real == "float64" else np.float32

    @njit(inline="always")
    def sign(x: Any) -> Any:
        return select(x > 0, number(1), select(x < 0, number(-1), x * number(0)))

    words: dict[str, Any] = {
        "absolute": absolute,
        "accumulate": accumulate,
        "argument": _make_reader(_INT, int64),
        "call": call,
        "claim": claim,
        "exp": np.exp,
        "log": np.log,
        "maximum": maximum,
        "minimum": minimum,
        "power": power,
        "put": put,
        "real": number,
        "select": select,
        "sign": sign,
        "sqrt": np.sqrt,
        "value": _make_reader(_DOUBLE, float64),
    }
    makers = {"load": _make_load, "store": _make_store}
    for name, word, storage, slot in re.findall(r"\b((load|store)_([a-z0-9]+)_(\d+))\(", source):
        words[name] = makers[word](storage, int(slot))
    return words


def compile_source(source: str, real: str) -> tuple[str, str]:
    """Compile ``def kernel(job)``.

    Args:
        source: what `emit` wrote.
        real: the type of its arithmetic, ``"float32"`` or ``"float64"``.

    Returns:
        The optimised module in LLVM's representation, and the name of the function of type ``void (int64)`` in it.
    """
    scope = _words(source, real)
    exec(compile(source, "<onepass kernel>", "exec"), scope)
    compiled = cfunc(types.void(int64), error_model="numpy", fastmath=_FASTMATH)(scope["kernel"])
    return compiled.inspect_llvm(), compiled.native_name


@njit(parallel=True, nogil=True, cache=True)
def _run_in_pool(function: Any, job: Any, threads: Any) -> None:
    for _ in prange(threads):
        call(function, job)


def run_in_numbas_pool(function: int, job: int, threads: int) -> None:
    """Run a kernel on this many threads of Numba's own pool: each takes chunks until none is left."""
    numba.set_num_threads(max(1, min(threads, config.NUMBA_NUM_THREADS)))  # pyright: ignore[reportAttributeAccessIssue]
    _run_in_pool(function, job, threads)
