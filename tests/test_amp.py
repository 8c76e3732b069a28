"""Mixed precision: GradScaler in both protocols, autocast, overflows, and steps skipped for non-finite gradients."""

import pytest
import torch
from helpers import parameters, set_gradients

import onepass


def state_of(opt):
    return {
        (i, key): value.clone()
        for i, p in enumerate(p for group in opt.param_groups for p in group["params"])
        for key, value in opt.state[p].items()
    }


def train(make, scaled, clip=None, steps=12, overflow_at=()):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    opt = make(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=4, enabled=scaled)
    for t in range(steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(t))
        opt.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        if t in overflow_at:
            if not scaled:
                continue
            loss = loss * float("inf")
        scaler.scale(loss).backward()
        if clip:
            scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(opt)
        scaler.update()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("fused", [False, True])
def test_a_scaled_run_equals_an_unscaled_one(fused, clip):
    make = lambda params: onepass.AdamW(params, lr=0.01, fused=fused)  # noqa: E731
    plain, scaled = train(make, False, clip), train(make, True, clip)
    assert torch.allclose(plain, scaled, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_leaves_everything_as_it_was(fused):
    make = lambda params: onepass.AdamW(params, lr=0.01, fused=fused)  # noqa: E731
    assert torch.allclose(train(make, False, overflow_at=(3, 7)), train(make, True, overflow_at=(3, 7)), rtol=1e-5)


def test_only_fused_true_takes_the_scalers_own_protocol():
    assert onepass.AdamW(parameters(), fused=True)._step_supports_amp_scaling
    assert not onepass.AdamW(parameters())._step_supports_amp_scaling


@pytest.mark.parametrize("found", [torch.tensor([2.0]), torch.tensor(1.0), 1])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_found_inf_in_any_shape_skips_the_step(found, backend):
    params = parameters()
    opt = onepass.AdamW(params, fused=True, backend=backend)
    set_gradients(params, torch.Generator().manual_seed(1))
    opt.step()
    before, states = [p.detach().clone() for p in params], state_of(opt)
    opt.grad_scale, opt.found_inf = torch.tensor(2.0), found
    opt.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert all(torch.equal(value, states[key]) for key, value in state_of(opt).items())
    opt.found_inf = 0
    kept = [p.grad.clone() for p in params]
    opt.step()
    assert not torch.equal(params[0], before[0])
    assert all(torch.equal(p.grad, g) for p, g in zip(params, kept, strict=True))


def test_autocast_in_bfloat16():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    opt = onepass.AdamW(model.parameters(), lr=0.05)
    x = torch.randn(64, 4)
    losses = []
    for _ in range(60):
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_a_nonfinite_gradient_skips_the_whole_step(name, backend):
    params = parameters()
    transforms = [onepass.clip_norm(1.0)]
    opt = onepass.create(name, params, skip_nonfinite=True, transforms=transforms, backend=backend)
    generator = torch.Generator().manual_seed(1)
    set_gradients(params, generator)
    opt.step()
    for bad in (float("nan"), float("inf"), -float("inf")):
        set_gradients(params, generator)
        params[0].grad[1, 2] = bad
        before, states = [p.detach().clone() for p in params], state_of(opt)
        opt.step()
        assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
        assert all(torch.equal(value, states[key]) for key, value in state_of(opt).items())
    assert opt.skipped_steps == 3
    set_gradients(params, generator)
    opt.step()
    assert opt.skipped_steps == 3
    assert not torch.equal(params[0], before[0])


def test_huge_finite_gradients_are_no_reason_to_skip():
    (p,) = parameters(dtype=torch.float32, shapes=((100,),))
    opt = onepass.SGD([p], lr=1e-38, skip_nonfinite=True)
    p.grad = torch.full_like(p, 3e38)
    before = p.detach().clone()
    opt.step()
    assert opt.skipped_steps == 0
    assert torch.allclose(before - p, torch.full_like(p, 3.0))


def test_skipping_can_be_switched_on_between_steps():
    (p,) = parameters(shapes=((3,),))
    opt = onepass.SGD([p], lr=0.1)
    p.grad = torch.ones_like(p)
    opt.step()
    opt.skip_nonfinite = True
    before = p.detach().clone()
    p.grad = torch.full_like(p, float("nan"))
    opt.step()
    assert torch.equal(p, before)
    assert opt.skipped_steps == 1
