"""Running error bounds: how far a computation in a kernel's arithmetic may end from the exact one, for its own inputs.

A fixed tolerance is either too loose for a plain sum or too tight where numbers cancel. Here every operation carries a
bound on its error along with its exact value (Higham, Accuracy and Stability of Numerical Algorithms, section 3.3), so
that the tolerance follows from the unit roundoff of the arithmetic and from nothing else.

`Bounded` is a small array library: `onepass.compiler.on_arrays` evaluates expressions with it, this module as ``xp``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

# Contraction and vectorisation save roundings; a division may become two of them, a reciprocal and a product.
DIVISION = 2.5
# The C library and LLVM promise 1 ulp at best for these, and 4 at worst.
FUNCTION = 8.0


@dataclass(frozen=True)
class Arithmetic:
    """The type a kernel computes in: its unit roundoff, and where it under- and overflows."""

    dtype: torch.dtype

    @property
    def unit(self):
        return torch.finfo(self.dtype).eps / 2

    @property
    def tiny(self):
        info = torch.finfo(self.dtype)
        return info.tiny * info.eps

    @property
    def largest(self):
        return torch.finfo(self.dtype).max


@dataclass(frozen=True, eq=False)
class Bounded:
    """Exact values in float64, and for each a bound on the error of its counterpart in ``arithmetic``.

    ``unsure`` marks those elements of a condition that may come out the other way.
    """

    value: torch.Tensor
    error: torch.Tensor
    arithmetic: Arithmetic
    unsure: torch.Tensor | bool = False

    @classmethod
    def exact(cls, value, arithmetic):
        value = torch.as_tensor(value, dtype=torch.float64)
        return cls(value, torch.zeros_like(value), arithmetic)

    @classmethod
    def number(cls, value, arithmetic):
        """A step value or a constant, rounded once as it enters the kernel."""
        value = torch.as_tensor(value, dtype=torch.float64)
        error = (value.to(arithmetic.dtype).double() - value).abs()
        return cls(value, error.nan_to_num(0.0), arithmetic)

    @property
    def dtype(self):
        return self.value.dtype

    @property
    def ndim(self):
        return self.value.ndim

    def rounded(self, value, error, roundings=1.0):
        """The result of an operation whose inputs contribute ``error``."""
        size = value.abs() + error
        least = torch.where(size == 0, 0.0, self.arithmetic.tiny)
        error = error + roundings * self.arithmetic.unit * size + least
        error = torch.where(value.isfinite() & (size > self.arithmetic.largest), math.inf, error)
        return Bounded(value, error, self.arithmetic)

    def lift(self, other):
        return other if isinstance(other, Bounded) else Bounded.number(other, self.arithmetic)

    def __add__(self, other):
        other = self.lift(other)
        return self.rounded(self.value + other.value, self.error + other.error)

    def __sub__(self, other):
        if other is self:
            return self.exact(torch.zeros_like(self.value), self.arithmetic)
        return self + -self.lift(other)

    def __mul__(self, other):
        other = self.lift(other)
        error = self.value.abs() * other.error + other.value.abs() * self.error + self.error * other.error
        return self.rounded(self.value * other.value, error)

    def __truediv__(self, other):
        other = self.lift(other)
        ratio = self.value / other.value
        nearest = other.value.abs() - other.error
        error = (self.error + ratio.abs() * other.error) / nearest
        error = torch.where((nearest <= 0) & (other.error > 0), math.inf, error)
        error = torch.where((other.value == 0) & (other.error == 0), 0.0, error)
        return self.rounded(ratio, error, DIVISION)

    def __pow__(self, other):
        other = self.lift(other)
        power = self.value**other.value
        relative = 2 * (other.value.abs() * self.error / self.value.abs() + self.value.abs().log().abs() * other.error)
        return self.rounded(power, power.abs() * relative.nan_to_num(0.0), FUNCTION)

    def __radd__(self, other):
        return self.lift(other) + self

    def __rsub__(self, other):
        return self.lift(other) - self

    def __rmul__(self, other):
        return self.lift(other) * self

    def __rtruediv__(self, other):
        return self.lift(other) / self

    def __rpow__(self, other):
        return self.lift(other) ** self

    def __neg__(self):
        return Bounded(-self.value, self.error, self.arithmetic)

    def __abs__(self):
        return Bounded(self.value.abs(), self.error, self.arithmetic)

    def compared(self, other, compare):
        other = self.lift(other)
        doubt = self.error + other.error
        unsure = (doubt > 0) & ((self.value - other.value).abs() <= doubt) & (other is not self)
        return Bounded(compare(self.value, other.value), torch.zeros_like(doubt), self.arithmetic, unsure)

    def __lt__(self, other):
        return self.compared(other, torch.lt)

    def __le__(self, other):
        return self.compared(other, torch.le)

    def __gt__(self, other):
        return self.compared(other, torch.gt)

    def __ge__(self, other):
        return self.compared(other, torch.ge)

    def __eq__(self, other):
        return self.compared(other, torch.eq)

    def __ne__(self, other):
        return self.compared(other, torch.ne)

    __hash__ = object.__hash__

    def __and__(self, other):
        return Bounded(self.value & other.value, self.error, self.arithmetic, self.unsure | other.unsure)

    def __or__(self, other):
        return Bounded(self.value | other.value, self.error, self.arithmetic, self.unsure | other.unsure)


def asarray(value, dtype=None):
    # A number among numbers carries no arithmetic; `where` gives it the one of its condition.
    return value


def where(condition, a, b):
    a, b = condition.lift(a), condition.lift(b)
    worst = (a.value - b.value).abs() + torch.maximum(a.error, b.error)
    error = torch.where(condition.unsure, worst, torch.where(condition.value, a.error, b.error))
    return Bounded(torch.where(condition.value, a.value, b.value), error, condition.arithmetic)


def maximum(a, b):
    return _chosen(torch.maximum, a, b, a > b)


def minimum(a, b):
    return _chosen(torch.minimum, a, b, a < b)


def _chosen(function, a, b, first):
    """Which of the two it is may be sure; the error of the other one does not matter then."""
    error = torch.where(first.value, a.error, b.error)
    error = torch.where(first.unsure, torch.maximum(a.error, b.error), error)
    return Bounded(function(a.value, b.value), error, a.arithmetic)


def clip(x, low, high):
    x = x if low is None else maximum(x, x.lift(low))
    return x if high is None else minimum(x, x.lift(high))


def sign(x):
    jump = torch.where(x.value == 0, 1.0, 2.0)
    unsure = (x.error > 0) & (x.value.abs() <= x.error)
    return Bounded(x.value.sign(), torch.where(unsure, jump, 0.0), x.arithmetic)


def sqrt(x):
    root = x.value.sqrt()
    below = x.value - x.error
    error = root - below.clamp(min=0).sqrt()
    return x.rounded(root, torch.where(below < 0, math.inf, error))


def exp(x):
    return x.rounded(x.value.exp(), x.value.exp() * x.error.expm1(), FUNCTION)


def log(x):
    below = x.value - x.error
    error = x.value.log() - below.clamp(min=0).log()
    return x.rounded(x.value.log(), torch.where(below <= 0, math.inf, error), FUNCTION)


def sum(x, axis=None, keepdims=False):
    """Partial sums are kept in float64 whatever the arithmetic, in any order; the result is rounded to it once."""
    axes = tuple(range(x.ndim)) if axis is None else axis
    if not axes:
        return x
    count = math.prod(x.value.shape[axis] for axis in axes)
    if count == 1:
        return Bounded(x.value.sum(axes, keepdim=keepdims), x.error.sum(axes, keepdim=keepdims), x.arithmetic)
    value = x.value.sum(axes, keepdim=keepdims)
    order = 2 * count * 2**-53 * x.value.abs().sum(axes, keepdim=keepdims)
    return x.rounded(value, x.error.sum(axes, keepdim=keepdims) + order)


def mean(x, axis=None, keepdims=False):
    total = sum(x, axis, keepdims)
    count = x.value.numel() / max(1, total.value.numel())
    return total if count == 1 else total / count
