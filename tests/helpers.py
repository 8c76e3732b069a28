"""What several tests need: parameters with random gradients, and two optimizers walking side by side."""

import torch

SHAPES = ((5, 3), (7,), (), (2, 3, 2, 2))


def parameters(seed=0, dtype=torch.float64, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def set_gradients(params, generator, scale=1.0):
    for p in params:
        p.grad = scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)


def relative_error(ours, theirs):
    """The largest difference in any tensor, relative to the largest value in it."""
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs, strict=True))


def walk(make_ours, make_theirs, steps=120, seed=0, change=None, dtype=torch.float64):
    """Give two optimizers equal parameters and equal random gradients; the largest relative error over all steps.

    ``change(optimizer, t)`` is called on both before step t.
    """
    ours, theirs = parameters(seed, dtype), parameters(seed, dtype)
    mine, other = make_ours(ours), make_theirs(theirs)
    generator = torch.Generator().manual_seed(seed + 1)
    worst = 0.0
    for t in range(1, steps + 1):
        set_gradients(ours, generator, scale=10.0 ** ((t % 7) - 3))
        for p, q in zip(ours, theirs, strict=True):
            q.grad = p.grad.clone()
        if change:
            change(mine, t)
            change(other, t)
        mine.step()
        other.step()
        worst = max(worst, relative_error([p.detach() for p in ours], [q.detach() for q in theirs]))
    return worst
