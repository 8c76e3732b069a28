"""What every backend asks of gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def refuse_sparse(owner: str, params: Iterable[torch.Tensor]) -> None:
    """Raise RuntimeError if a gradient is sparse, before anything has been changed."""
    for p in params:
        if p.grad is not None and p.grad.layout is not torch.strided:
            raise RuntimeError(
                f"{owner} does not take sparse gradients (layout {p.grad.layout}): build the embedding with "
                "sparse=False, or give its weights to torch.optim.SparseAdam"
            )
