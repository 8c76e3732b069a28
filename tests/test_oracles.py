"""What torch does not have, against NumPy oracles written from the papers: 120 steps in float64."""

import numpy as np
import oracles
import pytest
import torch
from helpers import parameters, relative_error, set_gradients

import onepass

TOLERANCE = 1e-10


def against(make_ours, make_oracle, steps=120, change=None):
    """The largest relative error of our optimizer against one oracle for each parameter."""
    params = parameters()
    opt = make_ours(params)
    theirs = [(p.detach().numpy().copy(), make_oracle()) for p in params]
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for t in range(1, steps + 1):
        set_gradients(params, generator)
        if change:
            change(opt, t)
        opt.step()
        theirs = [(oracle(w, p.grad.numpy()), oracle) for (w, oracle), p in zip(theirs, params, strict=True)]
        expected = [torch.from_numpy(np.asarray(w)) for w, _ in theirs]
        worst = max(worst, relative_error([p.detach() for p in params], expected))
    return worst


@pytest.mark.parametrize("form", ["l2", "decoupled"])
@pytest.mark.parametrize("options", [{}, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}])
def test_yogi(options, form):
    decay = getattr(onepass.decay, form)(0.1)
    error = against(
        lambda params: onepass.Yogi(params, weight_decay=decay, **options),
        lambda: oracles.Yogi(weight_decay=0.1, form=form, **options),
    )
    assert error < TOLERANCE


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"k": 3, "alpha": 0.8, "lr": 0.05, "eps": 1e-8}])
def test_ranger(options):
    assert against(lambda params: onepass.Ranger(params, **options), lambda: oracles.Ranger(**options)) < TOLERANCE


@pytest.mark.parametrize(("k", "alpha"), [(5, 0.5), (1, 0.8), (7, 1.0)])
def test_lookahead_on_momentum(k, alpha):
    error = against(
        lambda params: onepass.SGD(params, 0.1, 0.9, transforms=[onepass.lookahead(k=k, alpha=alpha)]),
        lambda: oracles.Lookahead(oracles.Momentum(0.1, 0.9), k, alpha),
    )
    assert error < TOLERANCE


def test_lookahead_on_yogi():
    error = against(
        lambda params: onepass.Yogi(params, transforms=[onepass.lookahead()]),
        lambda: oracles.Lookahead(oracles.Yogi(), 5, 0.5),
    )
    assert error < TOLERANCE


@pytest.mark.parametrize("form", ["l2", "decoupled", "independent"])
def test_decay_forms_under_a_schedule(form):
    def schedule(t):
        return 1 / (1 + t / 10)

    def change(opt, t):
        opt.param_groups[0]["lr"] = 0.1 * schedule(t)

    decay = getattr(onepass.decay, form)(0.01)
    error = against(
        lambda params: onepass.SGD(params, 0.1, 0.9, weight_decay=decay),
        lambda: oracles.Momentum(0.1, 0.9, 0.01, form, schedule),
        change=change,
    )
    assert error < TOLERANCE


def test_the_oracles_tell_the_forms_apart():
    ours = {
        form: against(
            lambda params, form=form: onepass.SGD(params, 0.1, 0.9, weight_decay=getattr(onepass.decay, form)(0.01)),
            lambda: oracles.Momentum(0.1, 0.9, 0.01, "l2"),
        )
        for form in ("l2", "decoupled", "independent")
    }
    assert ours["l2"] < TOLERANCE < 1e-4 < min(ours["decoupled"], ours["independent"])


def test_centralisation_alone():
    def oracle():
        inner = oracles.Momentum(0.1, 0.9)

        def step(p, g):
            return inner(p, g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True) if g.ndim > 1 else g)

        return step

    error = against(lambda params: onepass.SGD(params, 0.1, 0.9, transforms=[onepass.centralize()]), oracle)
    assert error < TOLERANCE


def test_value_clipping():
    def oracle():
        inner = oracles.Momentum(0.1, 0.9)
        return lambda p, g: inner(p, np.clip(g, -0.5, 0.5))

    error = against(lambda params: onepass.SGD(params, 0.1, 0.9, transforms=[onepass.clip_value(0.5)]), oracle)
    assert error < TOLERANCE


@pytest.mark.parametrize("rescaled", [True, False])
def test_cautious(rescaled):
    def oracle():
        state = {"b": 0.0}

        def step(p, g):
            state["b"] = 0.9 * state["b"] + g
            mask = (state["b"] * g > 0).astype(float)
            scale = max(mask.mean(), 1e-3) if rescaled else 1.0
            return p - 0.1 * state["b"] * mask / scale

        return step

    transform = onepass.cautious() if rescaled else onepass.cautious_mask()
    assert against(lambda params: onepass.SGD(params, 0.1, 0.9, transforms=[transform]), oracle) < TOLERANCE


def test_norm_clipping_is_that_of_torch_and_leaves_the_gradients_alone():
    ours, theirs = parameters(), parameters()
    mine = onepass.SGD(ours, 0.1, 0.9, transforms=[onepass.clip_norm(2.0)])
    other = torch.optim.SGD(theirs, 0.1, 0.9)
    generator = torch.Generator().manual_seed(1)
    assert mine.last_grad_norm is None
    for t in range(120):
        set_gradients(ours, generator, scale=10.0 ** (t % 5 - 3))
        for p, q in zip(ours, theirs, strict=True):
            q.grad = p.grad.clone()
        kept = [p.grad.clone() for p in ours]
        norm = torch.nn.utils.clip_grad_norm_(theirs, 2.0)
        mine.step()
        other.step()
        assert mine.last_grad_norm == pytest.approx(norm.item(), rel=1e-12)
        assert all(torch.equal(p.grad, g) for p, g in zip(ours, kept, strict=True))
    assert relative_error([p.detach() for p in ours], [q.detach() for q in theirs]) < TOLERANCE


def test_a_norm_that_nobody_measures_is_an_error():
    with pytest.raises(AttributeError, match=r"clip_norm\(max_norm\)"):
        _ = onepass.SGD(parameters()).last_grad_norm


def test_adaptive_clipping():
    def oracle():
        inner = oracles.Momentum(0.1, 0.9)

        def norm(x):
            return (
                np.sqrt((x**2).sum(axis=tuple(range(1, x.ndim)), keepdims=True))
                if x.ndim > 1
                else np.sqrt((x**2).sum())
            )

        def step(p, g):
            limit = 0.3 * np.maximum(norm(p), 1e-3)
            return inner(p, np.where(norm(g) > limit, g * limit / norm(g), g))

        return step

    transforms = [onepass.clip_adaptive(0.3)]
    assert against(lambda params: onepass.SGD(params, 0.1, 0.9, transforms=transforms), oracle) < TOLERANCE


def test_cautious_decay():
    def oracle():
        state = {"b": 0.0}

        def step(p, g):
            state["b"] = 0.9 * state["b"] + g
            return p * np.where(state["b"] * p >= 0, 1 - 0.1 * 0.05, 1.0) - 0.1 * state["b"]

        return step

    decay = onepass.decay.cautious(0.05)
    assert against(lambda params: onepass.SGD(params, 0.1, 0.9, weight_decay=decay), oracle) < TOLERANCE


def test_averages_of_the_weights():
    params = parameters()
    opt = onepass.SGD(params, 0.1, 0.9, transforms=[onepass.average(0.9)])
    expected = [p.detach().clone() for p in params]
    generator = torch.Generator().manual_seed(1)
    for _ in range(120):
        set_gradients(params, generator)
        opt.step()
        expected = [0.9 * old + 0.1 * p.detach() for old, p in zip(expected, params, strict=True)]
    before = [p.detach().clone() for p in params]
    with opt.averaged():
        assert relative_error([p.detach() for p in params], expected) < TOLERANCE
        with pytest.raises(RuntimeError, match="leave it first"):
            opt.step()
        with pytest.raises(RuntimeError, match="in place already"), opt.averaged():
            pass
    assert all(torch.equal(p, old) for p, old in zip(params, before, strict=True))
    with pytest.raises(ZeroDivisionError), opt.averaged():
        _ = 1 / 0
    assert all(torch.equal(p, old) for p, old in zip(params, before, strict=True))
    opt.step()


def test_averages_of_bfloat16_weights_are_kept_in_float32():
    (p,) = parameters(dtype=torch.bfloat16, shapes=((4,),))
    opt = onepass.SGD([p], 0.1, transforms=[onepass.average(0.999)])
    p.grad = torch.ones_like(p)
    opt.step()
    assert opt.state[p]["average"].dtype == torch.float32
    saved = opt.state_dict()
    opt.load_state_dict(saved)
    assert opt.state[p]["average"].dtype == torch.float32
    with pytest.raises(RuntimeError, match="keeps no averages"), onepass.SGD([p]).averaged():
        pass
