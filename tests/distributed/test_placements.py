"""DTensors placed in every way that a mesh allows, given their gradients by hand."""

import pytest
import torch
from helpers import relative_error
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from training import whole

import onepass

SHAPES = ((5, 6), (7,), (1, 4), (3, 2, 2))
STEPS = 20


def originals():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def gradients(t):
    generator = torch.Generator().manual_seed(100 + t)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def walk(name, params, place):
    opt = onepass.create(name, params, lr=0.01, weight_decay=0.1, transforms=[onepass.clip_norm(1.0)])
    for t in range(STEPS):
        for p, g in zip(params, gradients(t), strict=True):
            p.grad = place(g)
        opt.step()
    return [whole(p) for p in params], opt.last_grad_norm


def placed(name, mesh_shape, placements, strange=False):
    """``strange``: rank 0's gradients lie in memory in another order than its parameters, and rank 1's do not."""
    mesh = init_device_mesh("cpu", mesh_shape)

    def place(x):
        fitting = [
            Replicate() if isinstance(placement, Shard) and placement.dim >= x.ndim else placement
            for placement in placements
        ]
        x = distribute_tensor(x, mesh, fitting)
        part = x.to_local()
        if strange and mesh.get_rank() == 0 and part.ndim == 2:
            turned = part.t().contiguous().t()
            return DTensor.from_local(turned, mesh, fitting, shape=x.shape, stride=x.stride())
        return x

    params = [
        torch.nn.Parameter(place(x) if not strange else distribute_tensor(x, mesh, [Shard(0)])) for x in originals()
    ]
    values, norm = walk(name, params, place)
    return {"values": values, "norm": norm}


PLACEMENTS = {
    "rows": ((2,), [Shard(0)]),
    "columns": ((2,), [Shard(1)]),
    "copies": ((2,), [Replicate()]),
    "rows of copies": ((1, 2), [Replicate(), Shard(0)]),
    "copies of rows": ((2, 1), [Replicate(), Shard(0)]),
}


def compare(results, name):
    expected, norm = walk(name, [torch.nn.Parameter(x) for x in originals()], lambda g: g)
    for result in results:
        assert relative_error(result["values"], expected) < 1e-12
        assert result["norm"] == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_placement_changes_nothing(two_ranks, placement):
    compare(two_ranks(placed, "adamw", *PLACEMENTS[placement]), "adamw")


@pytest.mark.parametrize("name", ["adamw", "ranger"])
def test_one_rank_may_copy_its_gradients_while_the_other_does_not(two_ranks, name):
    compare(two_ranks(placed, name, (2,), [Shard(0)], True), name)


def refusal(name, placements):
    mesh = init_device_mesh("cpu", (2,))
    part = torch.ones(4, 4)
    p = torch.nn.Parameter(DTensor.from_local(part, mesh, placements, run_check=False))
    p.grad = torch.ones_like(p)
    opt = onepass.create(name, [p])
    try:
        opt.step()
    except RuntimeError as error:
        return {"error": str(error), "left_alone": bool(torch.equal(p.to_local(), part))}
    return {"error": "none", "left_alone": False}


@pytest.mark.parametrize(("name", "placements"), [("ranger", [Shard(1)]), ("adamw", [Partial()])])
def test_what_cannot_be_stepped_in_parts_is_refused_by_name(two_ranks, name, placements):
    for result in two_ranks(refusal, name, placements):
        assert repr(placements[0]) in result["error"] or str(placements[0]) in result["error"]
        assert result["left_alone"]
