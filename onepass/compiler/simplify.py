"""Constant folding, and the identities that hold for every floating-point number.

Only exact ones: ``x + 0`` and ``0 * x`` are left alone, for they change the sign of a zero or hide a NaN.
"""

from __future__ import annotations

from collections.abc import Callable

from onepass.lang.expr import Expr, Level, apply, constant
from onepass.lang.ops import OPS


def rebuild(root: Expr, change: Callable[[Expr], Expr | None], memo: dict[Expr, Expr]) -> Expr:
    """``root`` with each node ``change`` maps replaced by what it returns, and the nodes above built anew.

    ``change`` is asked before a node's arguments are visited; what it replaces is not entered.
    """
    done = memo.get(root)
    if done is None:
        done = change(root)
        if done is None:
            args = tuple(rebuild(arg, change, memo) for arg in root.args)
            unchanged = all(new is old for new, old in zip(args, root.args, strict=True))
            done = root if unchanged else apply(root.op, *args, over=root.data)
        memo[root] = done
    return done


def simplify(root: Expr, memo: dict[Expr, Expr] | None = None) -> Expr:
    """An expression of the same value, bit for bit, with the constants folded. ``memo`` is shared between roots."""
    memo = {} if memo is None else memo
    done = memo.get(root)
    if done is None:
        done = root
        if root.args:
            args = [simplify(arg, memo) for arg in root.args]
            done = _shorter(apply(root.op, *args, over=root.data))
        memo[root] = done
    return done


def _is(node: Expr, value: float) -> bool:
    return node.op == "constant" and not isinstance(node.data, bool) and repr(node.data) == repr(float(value))


def _shorter(node: Expr) -> Expr:
    op, args = node.op, node.args
    if OPS[op].kind == "reduction":
        return args[0] if op == "mean" and args[0].level == Level.STEP else node
    if all(arg.op == "constant" for arg in args):
        return constant(OPS[op].floats(*(arg.data for arg in args)))
    match op:
        case "mul":
            a, b = args
            return b if _is(a, 1) else a if _is(b, 1) else node
        case "div" if _is(args[1], 1):
            return args[0]
        case "sub" if _is(args[1], 0):
            return args[0]
        case "pow" if _is(args[1], 1):
            return args[0]
        case "pow" if _is(args[1], 2):
            return apply("mul", args[0], args[0])
        case "neg" if args[0].op == "neg":
            return args[0].args[0]
        case "where":
            condition, a, b = args
            if condition.op == "constant":
                return a if condition.data else b
            return a if a is b else node
        case _:
            return node
