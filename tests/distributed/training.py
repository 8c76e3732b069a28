"""A model and its batches, the same on however many ranks."""

import torch
import torch.distributed as dist

HYPERPARAMETERS = {"lr": 3e-3, "weight_decay": 0.1}


def make_model():
    """Its last layer has one row, so that on two ranks a shard of it is empty."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 15), torch.nn.Tanh(), torch.nn.Linear(15, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
    ).double()


def train(model, opt, steps, before_step=None):
    """Steps on this rank's share of batches that do not depend on the number of ranks."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    for t in steps:
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        x = x.chunk(world)[rank]
        opt.zero_grad()
        (model(x) - x.sum(1, keepdim=True).sin()).square().mean().backward()
        if before_step:
            before_step(t)
        opt.step()


def whole(x):
    """A tensor that is spread over the ranks, put together on each of them."""
    return (x.full_tensor() if hasattr(x, "full_tensor") else x).detach().clone()


def values(model):
    return [whole(p) for p in model.parameters()]


def put(model, saved):
    with torch.no_grad():
        for p, value in zip(model.parameters(), saved, strict=True):
            p.copy_(value)
