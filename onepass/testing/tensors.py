"""Laws of tensors: types, layouts, sizes, and gradients that are sparse or no numbers."""

from __future__ import annotations

import torch

from onepass.testing.law import (
    Subject,
    equal,
    give_gradients,
    law,
    parameters,
    refusal,
    require,
    require_close,
    require_equal,
    values,
    walk,
)

REAL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@law
def every_float_type_moves_and_stays(subject: Subject) -> None:
    """Parameters of 64, 32 and 16 bits, in one group, move, stay finite and keep their type."""
    params = [parameters((4, 3), dtype=dtype)[0] for dtype in REAL]
    before = values(params)
    walk(subject.make(params), params, [1, 2, 3])
    for p, old, dtype in zip(params, before, REAL, strict=True):
        require(p.dtype == dtype, f"a parameter of type {dtype} is of type {p.dtype} now")
        require(not torch.equal(p, old), f"a parameter of type {dtype} did not move")
        require(bool(torch.isfinite(p).all()), f"a parameter of type {dtype} is not finite after 3 steps")


@law
def complex_numbers_are_pairs_of_reals(subject: Subject) -> None:
    """A complex parameter moves as its real and imaginary parts would, or is refused by an error that says complex."""
    (p,) = parameters((5,), dtype=torch.complex128)
    q = torch.nn.Parameter(torch.view_as_real(p.detach()).flatten().clone())
    before = values([p])

    def steps() -> None:
        opt, other = subject.make([p]), subject.make([q])
        for seed in (1, 2, 3):
            give_gradients([p], seed)
            if p.grad is not None:
                q.grad = torch.view_as_real(p.grad).flatten().clone()
            opt.step()
            other.step()

    refused = refusal(steps, RuntimeError, TypeError, ValueError, NotImplementedError)
    if refused is None:
        require(not equal([p], before), "a complex parameter did not move")
        pairs = torch.view_as_real(p.detach()).flatten()
        require_close([pairs], [q], "a complex parameter should move as pairs of reals", 1e-12)
    else:
        require("complex" in str(refused).lower(), f"the refusal does not say complex: {refused}")
        require_equal([p], before, "a refusal should change nothing")


@law
def sparse_gradients_move_their_rows_or_are_refused(subject: Subject) -> None:
    """A sparse gradient moves its own rows, repeated ones added up, or is refused: a RuntimeError that says sparse."""
    rows, numbers = torch.tensor([[1, 3, 1]]), torch.full((3, 3), 0.5)

    def stepped(coalesced: bool) -> tuple[list[torch.nn.Parameter], list[torch.Tensor], Exception | None]:
        params = parameters((5,), (5, 3))
        before = values(params)
        opt = subject.make(params)
        give_gradients(params, 1)
        gradient = torch.sparse_coo_tensor(rows, numbers, (5, 3), device=params[1].device)
        params[1].grad = gradient.coalesce() if coalesced else gradient
        return params, before, refusal(opt.step, RuntimeError)

    params, before, refused = stepped(coalesced=False)
    if refused is not None:
        require("sparse" in str(refused).lower(), f"the refusal does not say sparse: {refused}")
        require_equal(params, before, "a refusal should change nothing")
        return
    moved = (params[1] != before[1]).any(dim=1).tolist()
    require(moved == [False, True, False, True, False], f"a gradient of rows 1 and 3 moved rows {moved}")
    others, _, refused = stepped(coalesced=True)
    require(refused is None, f"a coalesced sparse gradient is refused, and another is not: {refused}")
    require_close(params, others, "rows listed twice should count as their sum", 1e-6)


@law
def nan_stays_in_its_element(subject: Subject) -> None:
    """A NaN in a gradient leaves the other elements as they would be without it. Reductions break this by nature."""
    (p, bystander), (q, other) = parameters((6,), (3,)), parameters((6,), (3,))
    clean, poisoned = subject.make([p, bystander]), subject.make([q, other])
    for seed in (1, 2, 3):
        for params in ([p, bystander], [q, other]):
            give_gradients(params, seed)
        if seed == 2 and q.grad is not None:
            q.grad[4] = float("nan")
        clean.step()
        poisoned.step()
    rest = [0, 1, 2, 3, 5]
    require_equal([q[rest], other], [p[rest], bystander], "elements beside a NaN should move as without it")


@law
def layouts_do_not_matter(subject: Subject) -> None:
    """Parameters keep their strides and move alike, whatever theirs and their gradient's are."""
    (start,) = parameters((4, 6, 3, 2), dtype=torch.float64)
    reversed_axes = (3, 2, 1, 0)

    def transposed(x: torch.Tensor) -> torch.Tensor:
        return x.permute(reversed_axes).contiguous().permute(reversed_axes)

    def channels_last(x: torch.Tensor) -> torch.Tensor:
        return x.contiguous(memory_format=torch.channels_last)

    kinds = {"contiguous": torch.clone, "transposed": transposed, "channels last": channels_last}
    results: dict[str, torch.Tensor] = {}
    for name, kind in kinds.items():
        for gradients, gradient_kind in kinds.items():
            p = torch.nn.Parameter(kind(start.detach()))
            strides = p.stride()
            opt = subject.make([p])
            for seed in (1, 2):
                give_gradients([p], seed)
                p.grad = gradient_kind(p.grad) if p.grad is not None else None
                opt.step()
            p.grad = p.detach().new_full((), 0.5).expand(p.shape)
            opt.step()
            require(p.stride() == strides, f"a {name} parameter with {gradients} gradients lost its strides")
            results[f"{name} parameter with {gradients} gradients"] = p.detach()
    first = next(iter(results))
    for name, result in results.items():
        require_close([result], [results[first]], f"a {name} should move as a {first}", 1e-10)


@law
def every_size_is_legal(subject: Subject) -> None:
    """Tensors without elements, of one element and of no dimension do not stop the others, nor get stopped."""
    params = parameters((0, 3), (1,), (), (0,), (5,))
    before = values(params)
    walk(subject.make(params), params, [1])
    for p, old in zip(params, before, strict=True):
        require(p.shape == old.shape, f"a parameter of shape {tuple(old.shape)} is of shape {tuple(p.shape)} now")
        require(p.numel() == 0 or not torch.equal(p, old), f"a parameter of shape {tuple(p.shape)} did not move")


@law
def parameters_can_be_given_new_data(subject: Subject) -> None:
    """New ``.data`` between steps is where the next step writes, and the old memory is left alone."""
    params, others = parameters(), parameters()
    opt, other = subject.make(params), subject.make(others)
    walk(opt, params, [1, 2])
    old = [p.data for p in params]
    kept = values(old)
    for p in params:
        p.data = p.data.clone()
    walk(opt, params, [3, 4])
    walk(other, others, [1, 2, 3, 4])
    require_equal(old, kept, "memory that a parameter has left should not be written to")
    require_equal(params, others, "new data with the old numbers should change nothing")
