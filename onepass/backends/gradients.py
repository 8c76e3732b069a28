"""What every backend asks of gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from onepass.compiler import Program


def check_layouts(program: Program, params: Iterable[torch.Tensor]) -> None:
    """Raise RuntimeError if a gradient is sparse where that cannot be, before anything has been changed.

    An elementwise program takes gradients in coordinate format whose rows are whole: what an embedding gives.
    """
    for p in params:
        if p.grad is None or p.grad.layout is torch.strided:
            continue
        if p.grad.layout is not torch.sparse_coo or p.grad.sparse_dim() != 1:
            raise RuntimeError(
                f"{program.name} takes sparse gradients of whole rows in coordinate format, not this one of layout "
                f"{p.grad.layout}: build the embedding with sparse=False"
            )
        if not program.is_elementwise:
            raise RuntimeError(
                f"{program.name} with its transforms does not take sparse gradients, for it reduces over more than an "
                "element: build the embedding with sparse=False, or leave out clip_norm and the like for its group"
            )
