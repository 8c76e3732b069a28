"""From rules to programs: trace, simplify, decide, hoist, interpret, print. It imports no framework."""

from onepass.compiler.equations import equations
from onepass.compiler.interpret import on_arrays, on_host
from onepass.compiler.program import Program, Update, Variant, compile_rule, initial_value
from onepass.compiler.trace import Stage, Trace, trace

__all__ = [
    "Program",
    "Stage",
    "Trace",
    "Update",
    "Variant",
    "compile_rule",
    "equations",
    "initial_value",
    "on_arrays",
    "on_host",
    "trace",
]
