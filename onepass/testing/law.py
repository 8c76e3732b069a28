"""What a law is, and what the laws are written with: parameters, gradients, and comparisons that say what was seen."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

SHAPES = ((4, 3), (5,), (), (2, 3, 2, 2))
Tensors = Sequence[torch.Tensor]


class LawBroken(AssertionError):
    """An optimizer breaks laws.

    Attributes:
        laws: the names of the laws that it breaks.
    """

    def __init__(self, message: str, laws: tuple[str, ...]):
        super().__init__(message)
        self.laws = laws


@dataclass(frozen=True)
class Subject:
    """The optimizer class that a law is put to, and the arguments that it is always made with."""

    cls: type[torch.optim.Optimizer]
    arguments: Mapping[str, Any]

    def make(self, params: Any, **changed: Any) -> torch.optim.Optimizer:
        # A scheduler fills a tensor lr in place: every optimizer gets its own.
        own = {
            name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in self.arguments.items()
        }
        return self.cls(params, **{**own, **changed})

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """The class's defaults, with which it says what it offers."""
        return self.make(parameters()).defaults

    @property
    def has_lr(self) -> bool:
        return self.defaults.get("lr") is not None


LAWS: dict[str, Callable[..., None]] = {}


def law(check: Callable[[Subject], None]) -> Callable[..., None]:
    """Enter a check among the laws, to be called as ``LAWS[name](cls, **arguments)``; it raises LawBroken."""
    name, statement = check.__name__, (check.__doc__ or "").strip()

    @functools.wraps(check)
    def checked(cls: type[torch.optim.Optimizer], /, **arguments: Any) -> None:
        try:
            # What a class warns of is no law's business, and must not become an error where warnings are errors.
            with warnings.catch_warnings(), torch.enable_grad():
                warnings.simplefilter("ignore")
                check(Subject(cls, arguments))
        except Exception as error:
            seen = str(error) if type(error) is AssertionError else f"{type(error).__name__}: {error}"
            raise LawBroken(f"{cls.__name__} breaks {name!r}. {statement} Seen: {seen}", (name,)) from error

    LAWS[name] = checked
    return checked


def require(holds: bool, seen: str) -> None:
    """Raise AssertionError with what was seen, unless the law holds; under ``python -O`` as well, unlike ``assert``."""
    if not holds:
        raise AssertionError(seen)


def refusal(attempt: Callable[[], Any], *kinds: type[Exception]) -> Exception | None:
    """The error with which an attempt is refused, or None if it succeeds; errors of other kinds pass."""
    try:
        attempt()
    except kinds as error:
        return error
    return None


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """Parameters on torch's default device, the same at every call."""
    generator = torch.Generator("cpu").manual_seed(0)
    return [torch.nn.Parameter(_random(shape, dtype, generator)) for shape in shapes or SHAPES]


def give_gradients(params: Tensors, seed: int) -> None:
    """Give parameters gradients with elements of magnitudes between 0.5 and 1.5, which no 16-bit square loses."""
    generator = torch.Generator("cpu").manual_seed(seed)
    for p in params:
        g = _random(tuple(p.shape), p.dtype, generator)
        p.grad = (torch.sgn(g) * (0.5 + g.abs() % 1)).to(p.dtype)


def _random(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    drawn = torch.complex128 if dtype.is_complex else torch.float64
    value = torch.randn(shape, dtype=drawn, generator=generator, device="cpu")
    return value.to(torch.get_default_device(), dtype)


def walk(optimizer: torch.optim.Optimizer, params: Tensors, seeds: Iterable[int]) -> None:
    """Step once for every seed, each time with new gradients."""
    for seed in seeds:
        give_gradients(params, seed)
        optimizer.step()


def held(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters of all groups, in order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def values(params: Tensors) -> list[torch.Tensor]:
    """What parameters hold now."""
    return [p.detach().clone() for p in params]


def equal(ours: Tensors, theirs: Tensors) -> bool:
    """Whether two lists of tensors hold the same numbers."""
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def require_equal(ours: Tensors, theirs: Tensors, claim: str) -> None:
    """Require that two lists of tensors hold the same numbers, bit for bit."""
    require(equal(ours, theirs), f"{claim}, but {_difference(ours, theirs)}")


def require_close(ours: Tensors, theirs: Tensors, claim: str, tolerance: float) -> None:
    """Require that two lists of tensors hold nearly the same numbers."""
    close = all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(ours, theirs, strict=True))
    require(close, f"{claim}, but {_difference(ours, theirs)}")


def _difference(ours: Tensors, theirs: Tensors) -> str:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not torch.equal(a, b):
            wide = torch.complex128 if a.is_complex() else torch.float64
            apart = (a.detach().to(wide) - b.detach().to(wide)).abs().max().item()
            return f"tensor {i}, of shape {tuple(a.shape)}, is off by {apart:.3g}"
    return "all tensors agree"


def state_of(optimizer: torch.optim.Optimizer, p: torch.Tensor) -> dict[Any, Any]:
    """A copy of a parameter's state as it is now; empty if there is none yet."""
    state = optimizer.state.get(p, {})
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in state.items()}


def changed_keys(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[str]:
    """The keys under which two states differ, in value, in type, or because one has none."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        return type(a) is type(b) and bool(a == b)

    shared = before.keys() & after.keys()
    return sorted(
        str(key) for key in before.keys() | after.keys() if key not in shared or not same(before[key], after[key])
    )


def saved_and_loaded(state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict after a trip through a file that may hold nothing but weights."""
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
