"""Bugs that live in other libraries: each has a test here, over every optimizer that could have it."""

import pytest
import torch
from helpers import parameters, set_gradients, walk

import onepass

ALL = onepass.list_optimizers()


@pytest.mark.parametrize("name", ALL)
def test_an_idle_parameter_does_not_age(name):
    """A step counter kept per group makes a late parameter's first move too small or too large."""
    late, early = parameters(shapes=((6,), (6,)))
    alone = torch.nn.Parameter(late.detach().clone())
    opt, fresh = onepass.create(name, [late, early]), onepass.create(name, [alone])
    for _ in range(49):
        early.grad = torch.ones_like(early)
        opt.step()
    for _ in range(8):
        late.grad = torch.full_like(late, 0.5)
        alone.grad = torch.full_like(alone, 0.5)
        opt.step()
        fresh.step()
    assert torch.equal(late, alone)
    assert opt.state[late]["step"] == 8
    assert opt.state[early]["step"] == 57


@pytest.mark.parametrize("name", ALL)
def test_bias_corrections_never_see_a_low_precision_type(name):
    """0.999 is 1.0 in bfloat16: corrections computed there divide by zero."""
    low = [torch.nn.Parameter(torch.ones(64, dtype=torch.bfloat16))]
    high = [torch.nn.Parameter(torch.ones(64, dtype=torch.float64))]
    mine, exact = onepass.create(name, low), onepass.create(name, high)
    for _ in range(3):
        low[0].grad = torch.full_like(low[0], 0.25)
        high[0].grad = torch.full_like(high[0], 0.25)
        mine.step()
        exact.step()
    moved = (1 - high[0].detach()).abs()
    # Three roundings of the parameter to 8 bits of mantissa, and of the states on the way.
    assert ((low[0].double() - high[0]).abs() <= 3 * 2**-8 + 0.05 * moved).all()


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("sgd", {"momentum": 0.5}),
        ("sgd", {"momentum": 0.5, "dampening": 0.5}),
        ("sgd", {"momentum": 0.5, "nesterov": True}),
        ("rmsprop", {"momentum": 0.5}),
        ("rmsprop", {"centered": True}),
        ("adam", {"amsgrad": True}),
        ("adamw", {"amsgrad": True}),
        ("nadam", {"decoupled_weight_decay": True}),
        ("radam", {"decoupled_weight_decay": True}),
        ("ranger", {"k": 2}),
        ("ranger", {"alpha": 0.9}),
        *((name, {"maximize": True}) for name in ALL),
        *((name, {"weight_decay": 0.3}) for name in ALL),
    ],
)
def test_no_flag_is_ignored(name, flag):
    def walked(**options):
        params = parameters()
        opt = onepass.create(name, params, **options)
        generator = torch.Generator().manual_seed(1)
        for t in range(8):
            set_gradients(params, generator, scale=3.0 if t < 4 else 0.1)
            opt.step()
        return torch.cat([p.detach().flatten() for p in params])

    base = {"momentum": 0.5} if "dampening" in flag or "nesterov" in flag else {}
    decayed = {"weight_decay": 0.3} if "decoupled_weight_decay" in flag else {}
    assert not torch.equal(walked(**base, **decayed), walked(**{**base, **decayed, **flag}))


@pytest.mark.parametrize("name", ["radam", "ranger"])
def test_the_warm_up_of_radam_descends(name):
    (p,) = parameters(shapes=((6,),))
    opt = onepass.create(name, [p], lr=1e-3)
    for t in range(5):
        before = p.detach().clone()
        p.grad = torch.sign(p.detach())
        opt.step()
        assert (p.abs() < before.abs()).all(), f"step {t + 1} went uphill"


def test_the_first_adaptive_step_of_radam_is_the_sixth():
    (p,) = parameters(shapes=((3,),))
    opt = onepass.RAdam([p], lr=1.0, betas=(0.0, 0.999))
    for t in range(1, 8):
        before = p.detach().clone()
        p.grad = torch.full_like(p, 10.0)
        opt.step()
        plain = torch.allclose(before - p, p.grad)
        assert plain == (t < 6)


def test_slow_weights_exist_before_the_first_synchronisation():
    """A library that creates them at the first synchronisation makes that one a no-op."""
    p = torch.nn.Parameter(torch.zeros(3))
    opt = onepass.SGD([p], lr=1.0, transforms=[onepass.lookahead(k=2, alpha=0.5)])
    for expected in (-1.0, -1.0, -2.0, -2.0):
        p.grad = torch.ones(3)
        opt.step()
        assert torch.equal(p, torch.full((3,), expected))
    assert torch.equal(opt.state_dict()["state"][0]["slow"], torch.full((3,), -2.0))


def test_lookahead_leaves_no_second_set_of_groups_to_drift():
    (p,) = parameters(shapes=((3,),))
    opt = onepass.SGD([p], lr=1.0, transforms=[onepass.lookahead()])
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, 0.1)
    p.grad = torch.ones_like(p)
    opt.step()
    scheduler.step()
    before = p.detach().clone()
    opt.step()
    assert torch.allclose(before - p, torch.full_like(p, 0.1))


def test_yogi_squares_once():
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = onepass.Yogi([p])
    p.grad = torch.full_like(p, 3.0)
    opt.step()
    assert opt.state[p]["exp_avg_sq"].item() == pytest.approx(0.001 * 9.0)


def test_amsgrad_takes_the_maximum_before_the_bias_correction():
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = onepass.Adam([p], amsgrad=True)
    for g in (2.0, 0.1):
        p.grad = torch.full_like(p, g)
        opt.step()
    raw = 0.999 * (0.001 * 4) + 0.001 * 0.01
    assert opt.state[p]["max_exp_avg_sq"].item() == pytest.approx(max(0.004, raw), rel=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_never_written_to(name):
    params = parameters()
    transforms = [onepass.clip_value(0.1), onepass.cautious()] + ([onepass.centralize()] if name != "ranger" else [])
    opt = onepass.create(name, params, weight_decay=onepass.decay.l2(0.1), maximize=True, transforms=transforms)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        set_gradients(params, generator)
        kept = [(p.grad, p.grad.clone(), p.grad._version) for p in params]
        opt.step()
        assert all(p.grad is g for p, (g, _, _) in zip(params, kept, strict=True))
        assert all(torch.equal(g, copy) and g._version == version for g, copy, version in kept)


@pytest.mark.parametrize("name", ALL)
def test_empty_tensors_do_not_stop_the_rest_of_the_group(name):
    empty, full = torch.nn.Parameter(torch.zeros(0, 3)), torch.nn.Parameter(torch.ones(2, 3))
    transforms = [onepass.cautious()]
    opt = onepass.create(name, [empty, full], transforms=transforms)
    empty.grad = torch.zeros(0, 3)
    full.grad = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    opt.step()
    assert not torch.equal(full, torch.ones(2, 3))


# Rows that are no blocks of memory are for the reference, which the optimizer says once.
@pytest.mark.filterwarnings("ignore:onepass. the reference runs")
@pytest.mark.parametrize("name", ALL)
def test_layouts_do_not_matter(name):
    start = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layouts = {
        "contiguous": start.clone(),
        "channels_last": start.clone(memory_format=torch.channels_last),
        "transposed": start.clone().permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    }
    results = []
    for layout in layouts.values():
        p = torch.nn.Parameter(layout)
        opt = onepass.create(name, [p])
        for _ in range(7):
            p.grad = p.detach() * 0.3
            opt.step()
        p.grad = torch.ones((), dtype=torch.float64).expand(p.shape)
        opt.step()
        assert p.stride() == layout.stride()
        results.append(p.detach())
    assert all(torch.allclose(results[0], other, rtol=1e-12) for other in results[1:])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_gradients_stay_in_their_element(name, bad):
    p = torch.nn.Parameter(torch.ones(5))
    opt = onepass.create(name, [p])
    p.grad = torch.ones(5)
    p.grad[2] = bad
    opt.step()
    assert not torch.isfinite(p[2]) or bad == float("inf")
    assert torch.isfinite(p[[0, 1, 3, 4]]).all()


@pytest.mark.parametrize("name", ["Adagrad", "Adam", "RMSprop", "Adamax", "SGD", "Adadelta"])
def test_a_nan_gradient_does_what_it_does_in_torch(name):
    def poison(opt, t):
        if t == 3:
            opt.param_groups[0]["params"][0].grad[0, 0] = float("nan")

    params = parameters()
    others = parameters()
    mine, other = getattr(onepass, name)(params), getattr(torch.optim, name)(others, foreach=False)
    generator = torch.Generator().manual_seed(1)
    for t in range(5):
        set_gradients(params, generator)
        for p, q in zip(params, others, strict=True):
            q.grad = p.grad.clone()
        poison(mine, t)
        poison(other, t)
        mine.step()
        other.step()
    for p, q in zip(params, others, strict=True):
        assert torch.allclose(p, q, rtol=1e-10, equal_nan=True)


def test_weight_decay_does_not_depend_on_the_order_of_options():
    forward = walk(
        lambda p: onepass.AdamW(p, weight_decay=0.1, transforms=[onepass.clip_value(0.5), onepass.lookahead()]),
        lambda p: onepass.AdamW(p, weight_decay=0.1, transforms=[onepass.lookahead(), onepass.clip_value(0.5)]),
    )
    assert forward == 0


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("shape", [(700, 900), (3, 5, 7), (64, 32, 3, 3), (1, 30000), (2, 1, 4), (5,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_gradients_of_another_layout_are_brought_into_shape(name, shape, dtype):
    """A library that trusts the parameter's strides mixes up the elements."""
    torch.manual_seed(0)
    backwards = tuple(reversed(range(len(shape))))
    ours = torch.nn.Parameter(torch.randn(shape, dtype=dtype))
    theirs = torch.nn.Parameter(ours.detach().clone())
    mine, other = onepass.create(name, [ours], lr=0.1), onepass.create(name, [theirs], lr=0.1)
    for t in range(4):
        transposed = torch.randn(shape[::-1], dtype=dtype).permute(backwards)
        ours.grad = (transposed, torch.randn((), dtype=dtype).expand(shape))[t % 2]
        theirs.grad = torch.empty_like(theirs).copy_(ours.grad)
        mine.step()
        other.step()
        assert torch.equal(ours, theirs)


def test_a_large_tensor_is_stepped_to_its_last_element():
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(2**20 + 77, dtype=torch.float64))
    theirs = torch.nn.Parameter(ours.detach().clone())
    for p, backend in ((ours, "cpu"), (theirs, "reference")):
        opt = onepass.AdamW([p], lr=0.1, backend=backend)
        p.grad = torch.sin(torch.arange(len(p), dtype=torch.float64))
        opt.step()
    assert torch.allclose(ours, theirs, rtol=1e-13)
