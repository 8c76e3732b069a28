"""From rules to programs: trace, simplify, decide, hoist, interpret, print. It imports no framework."""

from onepass.compiler.arrays import compile_arrays
from onepass.compiler.equations import equations, text
from onepass.compiler.interpret import on_arrays, on_host
from onepass.compiler.program import GUARD, Program, Situation, Variant, Work, compile_rule, initial_value, walk
from onepass.compiler.trace import Stage, Trace, trace

__all__ = [
    "GUARD",
    "Program",
    "Situation",
    "Stage",
    "Trace",
    "Variant",
    "Work",
    "compile_arrays",
    "compile_rule",
    "equations",
    "initial_value",
    "on_arrays",
    "on_host",
    "text",
    "trace",
    "walk",
]
