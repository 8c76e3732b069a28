"""The language that rules are written in. It needs the standard library alone."""

from onepass.lang.declare import Applied, Declaration, Rule, State, Transform, rule, scalar, transform
from onepass.lang.expr import Expr, Level, constant, symbol
from onepass.lang.ops import OPS, Op
from onepass.lang.ranges import COMMON, Range, check
from onepass.lang.words import absolute, ema, exp, log, maximum, mean, minimum, norm, sign, sqrt, sum_, where

__all__ = [
    "COMMON",
    "OPS",
    "Applied",
    "Declaration",
    "Expr",
    "Level",
    "Op",
    "Range",
    "Rule",
    "State",
    "Transform",
    "absolute",
    "check",
    "constant",
    "ema",
    "exp",
    "log",
    "maximum",
    "mean",
    "minimum",
    "norm",
    "rule",
    "scalar",
    "sign",
    "sqrt",
    "sum_",
    "symbol",
    "transform",
    "where",
]
