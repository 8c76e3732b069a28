"""The backend that takes a step may be another than took the one before."""

import pytest
import torch

import onepass
from onepass.backends import select
from onepass.backends.cpu import launch as cpu
from onepass.backends.tables.cache import CannotCompile


@pytest.fixture(autouse=True)
def by_itself(monkeypatch):
    monkeypatch.delenv("ONEPASS_BACKEND", raising=False)
    select._say_once.cache_clear()


def test_a_session_that_took_everything_gives_up_what_it_cannot_take():
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(4))
    opt = onepass.AdamW([p, q], lr=0.1)
    other = onepass.AdamW([torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(4))], lr=0.1, foreach=False)
    mine = opt.param_groups[0]["params"]
    for step in range(6):
        for a, b in zip(mine, other.param_groups[0]["params"], strict=True):
            a.grad, b.grad = torch.full_like(a, step + 1.0), torch.full_like(b, step + 1.0)
        if step in (2, 4):
            # Every other element of another tensor: a layout that no kernel takes.
            q.data = torch.stack([q.detach(), q.detach()], 1)[:, 0] if step == 2 else q.detach().contiguous()
            for key in ("exp_avg", "exp_avg_sq"):
                opt.state[q][key] = opt.state[q][key].clone()
            q.grad = torch.full_like(q, step + 1.0)
        if step == 2:
            with pytest.warns(UserWarning, match="has holes or overlaps"):
                opt.step()
        else:
            opt.step()
        other.step()
        for a, b in zip(mine, other.param_groups[0]["params"], strict=True):
            assert torch.allclose(a, b, rtol=1e-6)
            assert float(opt.state[a]["step"]) == step + 1


def test_a_kernel_that_a_later_step_lacks_is_the_references_work(monkeypatch):
    params = [torch.nn.Parameter(torch.ones(5)) for _ in range(2)]
    # With its sixth step RAdam leaves plain momentum, which takes another kernel.
    opt, reference = onepass.RAdam(params[:1], lr=0.1), onepass.RAdam(params[1:], lr=0.1, backend="reference")
    for step in range(8):
        for p in params:
            p.grad = torch.full_like(p, step + 1.0)
        if step == 5:
            cpu.kernels.cache_clear()
            monkeypatch.setattr(cpu.machine, "load", missing_compiler)
            with pytest.warns(UserWarning, match="no compiler today"):
                opt.step()
        else:
            opt.step()
        reference.step()
        assert torch.allclose(*params, rtol=1e-6)
        assert float(opt.state[params[0]]["step"]) == step + 1
    cpu.kernels.cache_clear()


def missing_compiler(*_):
    raise CannotCompile("no compiler today")
