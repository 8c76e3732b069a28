"""What gradient release cannot do, refused by name at the call or when it comes about."""

import pytest
import torch
from releasing import assert_same, everything, loss_of, make, make_model, train

import onepass

REFUSED = {
    "clip_norm": {"transforms": [onepass.clip_value(1.0), onepass.clip_norm(1.0)]},
    "skip_nonfinite=True": {"skip_nonfinite": True},
    "differentiable=True": {"differentiable": True},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_needs_all_gradients_is_refused_by_name(what):
    model = make_model()
    opt = onepass.AdamW(model.parameters(), **REFUSED[what])
    with pytest.raises(ValueError, match=f"AdamW: {what} .*train without release_gradients"):
        onepass.release_gradients(model, opt)
    loss_of(model, 0).backward()
    assert model["last"].weight.grad is not None


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("skip_nonfinite=True", lambda opt: setattr(opt, "skip_nonfinite", True)),
        ("differentiable=True", lambda opt: opt.defaults.update(differentiable=True)),
    ],
)
def test_what_is_switched_on_later_is_refused_before_anything_steps(what, change):
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    train(model, opt, range(2))
    change(opt)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match=what):
        loss_of(model, 2).backward()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_a_scaler_is_refused(fused, unscale):
    model = make_model()
    opt = onepass.AdamW(model.parameters(), fused=fused)
    handle = onepass.release_gradients(model, opt)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(loss_of(model, 0)).backward()
    if unscale:
        scaler.unscale_(opt)
    with pytest.raises(RuntimeError, match="a GradScaler cannot unscale gradients that are released"):
        scaler.step(opt)
    assert not hasattr(opt, "found_inf")
    assert not hasattr(opt, "grad_scale")
    handle.remove()
    assert opt._step_supports_amp_scaling == fused
    opt.zero_grad()
    loss_of(model, 0).backward()
    opt.step()


def test_a_scaler_that_is_off_changes_nothing():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for t in range(3):
        scaler.scale(loss_of(model, t)).backward()
        scaler.step(opt)
        scaler.update()
    expected = make_model()
    whole = make(expected)
    train(expected, whole, range(3))
    assert_same(everything(model, opt), everything(expected, whole))


def test_a_closure_is_refused():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    with pytest.raises(RuntimeError, match="no closure while gradients are released"):
        opt.step(lambda: loss_of(model, 0))


def test_a_second_arrival_without_a_step_is_an_error():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    loss_of(model, 0).backward()
    with pytest.raises(RuntimeError, match=r"last\.\w+ arrived again after its step: call opt\.step\(\)"):
        loss_of(model, 1).backward()


def test_hyperparameters_changed_too_late_are_an_error():
    model = make_model()
    opt = onepass.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    onepass.release_gradients(model, opt)
    loss_of(model, 0).backward()
    opt.param_groups[0]["lr"] = 0.05
    with pytest.raises(RuntimeError, match=r"AdamW: lr changed between backward\(\) and opt.step\(\)"):
        opt.step()
    opt.param_groups[0]["lr"] = 0.1
    opt.step()
    loss_of(model, 1).backward()
    opt.param_groups[0]["weight_decay"] = 0.0
    with pytest.raises(RuntimeError, match="weight_decay"):
        opt.step()


def test_a_gradient_that_comes_back_after_its_step_is_an_error():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    loss_of(model, 0).backward()
    model["last"].weight.grad = torch.zeros_like(model["last"].weight)
    with pytest.raises(RuntimeError, match=r"last\.weight is there again after its step"):
        opt.step()


def test_a_gradient_put_there_by_hand_steps_at_the_users_call():
    model = make_model()
    opt = onepass.SGD(model.parameters(), lr=0.5)
    onepass.release_gradients(model, opt)
    p = model["last"].bias
    before = p.detach().clone()
    p.grad = torch.ones_like(p)
    opt.step()
    assert torch.equal(p, before - 0.5)
    assert p.grad is None


def test_no_step_while_averages_are_in_place():
    model = make_model()
    opt = onepass.AdamW(model.parameters(), transforms=[onepass.average(0.9)])
    onepass.release_gradients(model, opt)
    train(model, opt, range(2))
    with opt.averaged(), pytest.raises(RuntimeError, match=r"inside `with opt\.averaged\(\)`"):
        loss_of(model, 2).backward()


def test_a_second_call_is_refused():
    model = make_model()
    opt = make(model)
    handle = onepass.release_gradients(model, opt)
    with pytest.raises(ValueError, match="this NAdam's gradients are released already"):
        onepass.release_gradients(model, opt)
    with pytest.raises(ValueError, match=r"and \d+ more are released already"):
        onepass.release_gradients(model, make(model))
    handle.remove()
    onepass.release_gradients(model, opt)


def test_an_optimizer_of_another_model_is_refused():
    opt = make(make_model())
    with pytest.raises(ValueError, match=r"parameters of NAdam are not ModuleDict's: .* and \d+ more"):
        onepass.release_gradients(make_model(), opt)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"accumulate": 0}, ValueError, "1 or more, not 0"),
        ({"accumulate": 1.5}, TypeError, "whole number, not 1.5"),
        ({"accumulate": True}, TypeError, "whole number, not True"),
        ({"opt": torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])}, TypeError, "of onepass, not a SGD"),
        ({"model": [1]}, TypeError, r"torch\.nn\.Module, not \[1\]"),
    ],
)
def test_arguments_of_other_kinds_are_refused(given, error, match):
    model = make_model()
    with pytest.raises(error, match=match):
        onepass.release_gradients(**{"model": model, "opt": make(model), **given})
