"""Print a rule's equations from its graph, with the rule's own names for what it computes on the way."""

# Its tables of functions from texts to text need no types in every line.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from onepass.compiler.program import walk
from onepass.compiler.simplify import simplify
from onepass.compiler.trace import G, P, Stage, Trace, trace
from onepass.lang.declare import Rule
from onepass.lang.expr import Expr, Level, symbol
from onepass.lang.ops import OPS

# How tightly an operation binds; an argument that binds less is put in parentheses.
_OR, _AND, _COMPARE, _SUM, _NEGATE, _PRODUCT, _POWER, _ATOM = range(8)

_LETTERS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ",
    "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ",
    "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
# What the field writes for the names that torch gives to hyperparameters.
_USUAL = {
    "lr": ("η", r"\eta"),
    "lr_max": ("ηₘₐₓ", r"\eta_{\max}"),
    "eps": ("ε", r"\epsilon"),
    "p": ("θ", r"\theta"),
    "p_next": ("θ′", r"\theta'"),
    "weight_decay": ("λ", r"\lambda"),
    "momentum": ("μ", r"\mu"),
    "dampening": ("τ", r"\tau"),
    "momentum_decay": ("ψ", r"\psi"),
    "betas[0]": ("β₁", r"\beta_1"),
    "betas[1]": ("β₂", r"\beta_2"),
    "betas[2]": ("β₃", r"\beta_3"),
}
_SUBSCRIPTS = str.maketrans("0123456789t+-=aehijklmnoprsuvx", "₀₁₂₃₄₅₆₇₈₉ₜ₊₋₌ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛᵤᵥₓ")
_SUPERSCRIPTS = str.maketrans("0123456789+-abcdefghijklmnoprstuvwxyzT", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᵀ")
_ACCENTS = {"hat": ("\u0302", r"\hat"), "bar": ("\u0304", r"\bar"), "tilde": ("\u0303", r"\tilde")}


@dataclass(frozen=True)
class _Style:
    """How to write: ``ops`` maps an op to its text from its printed arguments, and to how tightly that binds."""

    ops: Mapping[str, tuple[Callable[..., str], int]]
    name: Callable[[str], str]
    time: Callable[[str, str], str]
    norm: Callable[[str, str], str]
    fence: tuple[str, str]
    assign: str
    prime: str


def _unicode_name(name: str) -> str:
    if name in _USUAL:
        return _USUAL[name][0]
    base, *suffixes = re.split(r"_|(?<=[A-Za-z])(?=\d)", name)
    if len(base) > 1 and base not in _LETTERS:
        return name
    text = _LETTERS.get(base, base)
    for suffix in suffixes:
        if suffix in _ACCENTS:
            text += _ACCENTS[suffix][0]
        elif suffix == "inf":
            text += "∞"
        elif suffix.isdigit():
            text += suffix.translate(_SUBSCRIPTS)
        else:
            text += suffix.translate(_SUPERSCRIPTS)
    return text


def _latex_name(name: str) -> str:
    if name in _USUAL:
        return _USUAL[name][1]
    base, *suffixes = re.split(r"_|(?<=[A-Za-z])(?=\d)", name)
    if len(base) > 1 and base not in _LETTERS:
        return rf"\mathrm{{{name}}}".replace("_", r"\_")
    text = f"\\{base}" if base in _LETTERS else base
    for suffix in suffixes:
        if suffix in _ACCENTS:
            text = f"{_ACCENTS[suffix][1]}{{{text}}}"
        elif suffix == "inf" or suffix.isdigit():
            text += r"_{\infty}" if suffix == "inf" else f"_{{{suffix}}}"
        else:
            text += rf"^{{\mathrm{{{suffix}}}}}"
    return text


def _unicode_power(a: str, b: str) -> str:
    compact = b.replace(" ", "").translate(_SUPERSCRIPTS)
    simple = b.replace(" ", "")
    return a + compact if simple and all(c.translate(_SUPERSCRIPTS) != c for c in simple) else f"{a}^({b})"


def _unicode_time(name: str, when: str) -> str:
    return name + when.translate(_SUBSCRIPTS)


def _unicode_root(a: str) -> str:
    return f"√{a}" if re.fullmatch(r"[^\W\d_][^\s()+/·−]*|\(.*\)", a) and not _splits(a) else f"√({a})"


def _splits(text: str) -> bool:
    """Whether the first parenthesis of ``text`` closes before its end: ``(a) / (b)``."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if text.startswith("(") and depth == 0 and i < len(text) - 1:
            return True
    return False


def _call(name: str) -> Callable[..., str]:
    return lambda *args: f"{name}({', '.join(args)})"


def _latex_call(name: str) -> Callable[..., str]:
    return lambda *args: rf"{name}\left({', '.join(args)}\right)"


def _infix(sign: str) -> Callable[[str, str], str]:
    return lambda a, b: f"{a} {sign} {b}"


UNICODE: dict[str, tuple[Callable[..., str], int]] = {
    "add": (_infix("+"), _SUM),
    "sub": (_infix("−"), _SUM),
    "mul": (_infix("·"), _PRODUCT),
    "div": (_infix("/"), _PRODUCT),
    "pow": (_unicode_power, _POWER),
    "mod": (_infix("mod"), _PRODUCT),
    "neg": (lambda a: f"−{a}", _NEGATE),
    "absolute": (lambda a: f"|{a}|", _ATOM),
    "sqrt": (_unicode_root, _ATOM),
    "exp": (_call("exp"), _ATOM),
    "log": (_call("log"), _ATOM),
    "sign": (_call("sign"), _ATOM),
    "maximum": (_call("max"), _ATOM),
    "minimum": (_call("min"), _ATOM),
    "lt": (_infix("<"), _COMPARE),
    "le": (_infix("≤"), _COMPARE),
    "gt": (_infix(">"), _COMPARE),
    "ge": (_infix("≥"), _COMPARE),
    "eq": (_infix("="), _COMPARE),
    "ne": (_infix("≠"), _COMPARE),
    "and": (_infix("and"), _AND),
    "or": (_infix("or"), _OR),
    "where": (lambda c, a, b: f"{{ {a} if {c}, else {b} }}", _ATOM),
    "sum": (lambda a, over: f"sum{_over(over)}({a})", _ATOM),
    "mean": (lambda a, over: f"mean{_over(over)}({a})", _ATOM),
}

LATEX: dict[str, tuple[Callable[..., str], int]] = {
    **UNICODE,
    "sub": (_infix("-"), _SUM),
    "mul": (_infix(r"\,"), _PRODUCT),
    "div": (lambda a, b: rf"\frac{{{a}}}{{{b}}}", _ATOM),
    "pow": (lambda a, b: f"{a}^{{{b}}}", _POWER),
    "mod": (_infix(r"\bmod"), _PRODUCT),
    "neg": (lambda a: f"-{a}", _NEGATE),
    "absolute": (lambda a: rf"\left|{a}\right|", _ATOM),
    "sqrt": (lambda a: rf"\sqrt{{{a}}}", _ATOM),
    "exp": (_latex_call(r"\exp"), _ATOM),
    "log": (_latex_call(r"\log"), _ATOM),
    "sign": (_latex_call(r"\operatorname{sign}"), _ATOM),
    "maximum": (_latex_call(r"\max"), _ATOM),
    "minimum": (_latex_call(r"\min"), _ATOM),
    "le": (_infix(r"\le"), _COMPARE),
    "ge": (_infix(r"\ge"), _COMPARE),
    "ne": (_infix(r"\ne"), _COMPARE),
    "and": (_infix(r"\land"), _AND),
    "or": (_infix(r"\lor"), _OR),
    "where": (lambda c, a, b: rf"\begin{{cases}}{a} & {c}\\{b} & \text{{otherwise}}\end{{cases}}", _ATOM),
    "sum": (lambda a, over: rf"\operatorname{{sum}}{_latex_over(over)}\left({a}\right)", _ATOM),
    "mean": (lambda a, over: rf"\operatorname{{mean}}{_latex_over(over)}\left({a}\right)", _ATOM),
}


def _over(over: str) -> str:
    return "" if over == "tensor" else f"[{over}]"


def _latex_over(over: str) -> str:
    return "" if over == "tensor" else rf"_{{\mathrm{{{over}}}}}"


_STYLES = {
    False: _Style(
        UNICODE,
        _unicode_name,
        _unicode_time,
        lambda a, over: f"‖{a}‖{'' if over == 'tensor' else over}",
        ("(", ")"),
        "=",
        "′",
    ),
    True: _Style(
        LATEX,
        _latex_name,
        lambda name, when: f"{name}_{{{when}}}",
        lambda a, over: rf"\left\|{a}\right\|{_latex_over(over)}",
        (r"\left(", r"\right)"),
        "&=",
        "'",
    ),
}


def equations(rule: Rule, stages: tuple[Stage, ...] = (), *, latex: bool = False) -> str:
    """The equations of one step, a line each, in the order in which they are computed.

    Args:
        rule: the rule.
        stages: its transforms.
        latex: LaTeX (an ``aligned`` block) instead of Unicode text.
    """
    traced = trace(rule, stages, named=True)
    printer = _Printer(_simplified(traced), _STYLES[latex])
    lines = printer.lines()
    if latex:
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"
    return "\n".join(lines)


def text(expression: Expr) -> str:
    """An expression on one line of Unicode text, as in the equations."""
    return _Printer(Trace(expression, {}, {}, frozenset(), frozenset(), {}, {}), _STYLES[False]).body(expression)


def _simplified(traced: Trace) -> Trace:
    memo: dict[Expr, Expr] = {}
    names: dict[Expr, str] = {}
    for node, name in traced.names.items():
        short = simplify(node, memo)
        if short.args:
            names.setdefault(short, name)
    states = {key: simplify(new, memo) for key, new in traced.states.items()}
    return replace(traced, parameter=simplify(traced.parameter, memo), states=states, names=names)


class _Printer:
    def __init__(self, traced: Trace, style: _Style):
        self.style = style
        self.traced = traced
        self.known: dict[Expr, str] = {P: style.time(style.name("p"), "t-1"), G: style.time(style.name("g"), "t")}
        self.titles: dict[Expr, str] = {}
        taken: set[str] = set()
        for key, new in traced.states.items():
            level = Level.STEP if key in traced.scalars else Level.ELEMENT
            # A state goes by the name that its rule gave it; the key is for checkpoints.
            name = traced.names.get(new, key)
            self.known[symbol(f"state.{key}", level)] = style.time(style.name(name), "t-1")
            if new.args:
                self.titles[new] = style.time(style.name(name), "t")
            taken.add(name)
        for node, name in traced.names.items():
            if node not in self.titles and name not in taken:
                # A name that is used again, as the gradient's by each of its transforms, gets a prime.
                title = style.name(name)
                while title in self.titles.values():
                    title += style.prime
                self.titles[node] = title

    def lines(self) -> list[str]:
        style, lines = self.style, list[str]()
        roots = [*self.traced.states.values(), self.traced.parameter]
        for node in walk(roots):
            if node in self.titles and node is not self.traced.parameter:
                lines.append(f"{self.titles[node]} {style.assign} {self.body(node)}")
                self.known[node] = self.titles[node]
        lines.append(
            f"{style.time(style.name('p'), 't')} {style.assign} {self.text(self.traced.parameter, own=True)[0]}"
        )
        return lines

    def body(self, node: Expr) -> str:
        return self.text(node, own=True)[0]

    def text(self, node: Expr, own: bool = False) -> tuple[str, int]:
        """The text of a node and how tightly it binds; ``own`` spells out a node that has a name."""
        if node in self.known and not own:
            return self.known[node], _ATOM
        if node.op == "symbol":
            return self.style.name(node.data), _ATOM
        if node.op == "constant":
            return f"{node.data:g}".replace("-", "−"), _ATOM if node.data >= 0 else _NEGATE
        root = node.args[0]
        if node.op == "sqrt" and root.op == "sum" and _is_square(root.args[0]) and root not in self.known:
            return self.style.norm(self.text(root.args[0].args[0])[0], root.data), _ATOM
        write, binds = self.style.ops[node.op]
        if OPS[node.op].kind == "reduction":
            return write(self.text(root)[0], node.data), binds
        if _is_square(node):
            write, binds = self.style.ops["pow"]
            return write(self.fenced(root, _ATOM), "2"), binds
        if binds == _ATOM:
            return write(*(self.text(arg)[0] for arg in node.args)), binds
        left, *others = node.args
        if node.op == "pow":
            return write(self.fenced(left, _ATOM), self.text(others[0])[0]), binds
        # a - (b - c) and a / (b · c) need their parentheses, (a - b) - c does not.
        return write(self.fenced(left, binds), *(self.fenced(arg, binds + _strict(node.op)) for arg in others)), binds

    def fenced(self, node: Expr, binds: int) -> str:
        text, own = self.text(node)
        opening, closing = self.style.fence
        return text if own >= binds else f"{opening}{text}{closing}"


def _strict(op: str) -> bool:
    return op in ("sub", "div", "mod")


def _is_square(node: Expr) -> bool:
    return node.op == "mul" and node.args[0] is node.args[1]
