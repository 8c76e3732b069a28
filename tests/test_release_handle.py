"""Gradient release over an optimizer's life: checkpoints, copies, layers that come and go, and the release's end."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from releasing import assert_same, everything, loss_of, make, make_model, train

import onepass


@pytest.mark.parametrize("saved_released", [False, True])
@pytest.mark.parametrize("loaded_released", [False, True])
@pytest.mark.parametrize("walked", [False, True])
def test_a_checkpoint_goes_in_and_out(saved_released, loaded_released, walked):
    expected = make_model()
    whole = make(expected)
    train(expected, whole, range(8))

    model = make_model()
    opt = make(model)
    if saved_released:
        onepass.release_gradients(model, opt)
    train(model, opt, range(4))
    saved = copy.deepcopy((model.state_dict(), opt.state_dict()))

    again = make_model()
    other = make(again)
    if loaded_released:
        onepass.release_gradients(again, other)
    if walked:
        train(again, other, range(50, 53))
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    train(again, other, range(4, 8))
    assert_same(everything(again, other), everything(expected, whole))


def test_a_checkpoint_loaded_between_backward_and_step_begins_anew():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    train(model, opt, range(3))
    saved = copy.deepcopy((model.state_dict(), opt.state_dict()))
    loss_of(model, 3).backward()
    model.load_state_dict(saved[0])
    opt.load_state_dict(saved[1])
    train(model, opt, range(3, 6))
    expected = make_model()
    whole = make(expected)
    train(expected, whole, range(6))
    assert_same(everything(model, opt), everything(expected, whole))


def test_remove_makes_it_ordinary_again():
    expected = make_model()
    whole = make(expected)
    train(expected, whole, range(9))
    model = make_model()
    opt = make(model)
    with onepass.release_gradients(model, opt) as handle:
        train(model, opt, range(3))
    handle.remove()
    loss_of(model, 3).backward()
    assert model["last"].weight.grad is not None
    opt.step()
    train(model, opt, range(4, 6))
    onepass.release_gradients(model, opt)
    train(model, opt, range(6, 9))
    assert_same(everything(model, opt), everything(expected, whole))
    assert not whole._step_supports_amp_scaling


def test_remove_in_mid_iteration_counts_the_step_once():
    model = make_model()
    opt = make(model)
    handle = onepass.release_gradients(model, opt)
    loss_of(model, 1).backward()
    handle.remove()
    opt.step()
    train(model, opt, range(2, 4))
    expected = make_model()
    whole = make(expected)
    train(expected, whole, range(1, 4))
    assert_same(everything(model, opt), everything(expected, whole))


def test_accumulated_gradients_outlive_the_release():
    model = make_model()
    opt = make(model)
    with onepass.release_gradients(model, opt, accumulate=2):
        loss_of(model, 1).backward()
    assert model["last"].weight.grad is not None


def test_a_frozen_layer_joins_when_it_is_thawed():
    results = []
    for release in (False, True):
        model = make_model()
        opt = make(model)
        if release:
            onepass.release_gradients(model, opt)
        assert not model["frozen"].weight.requires_grad
        train(model, opt, range(3))
        model["frozen"].requires_grad_(True)
        opt.zero_grad()
        loss_of(model, 3).backward()
        assert (model["frozen"].weight.grad is None) == release
        opt.step()
        model["frozen"].requires_grad_(False)
        train(model, opt, range(4, 6))
        results.append(everything(model, opt))
    assert_same(*results)


@pytest.mark.parametrize("between", [False, True])
def test_parameters_added_later_join(between):
    results = []
    for release in (False, True):
        model = make_model()
        last = list(model["last"].parameters())
        opt = onepass.AdamW([p for p in model.parameters() if all(p is not q for q in last)], lr=0.01)
        if release:
            onepass.release_gradients(model, opt)
        train(model, opt, range(3))
        model.zero_grad()
        if between:
            loss_of(model, 3).backward()
            opt.add_param_group({"params": last, "lr": 0.1})
            opt.step()
        else:
            opt.add_param_group({"params": last, "lr": 0.1})
        opt.zero_grad()
        loss_of(model, 4).backward()
        assert (last[0].grad is None) == release
        opt.step()
        results.append(everything(model, opt))
    assert_same(*results)


def test_what_is_added_must_be_the_models():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    with pytest.raises(ValueError, match=r"not ModuleDict's: one of shape \(4,\)"):
        opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(4))]})
    assert len(opt.param_groups) == 1
    train(model, opt, range(2))


def test_a_parameter_taken_out_of_its_group_is_left_alone():
    model = make_model()
    opt = onepass.SGD(model.parameters(), lr=0.1)
    onepass.release_gradients(model, opt)
    p = opt.param_groups[0]["params"].pop(0)
    before = p.detach().clone()
    loss_of(model, 0).backward()
    opt.step()
    assert p.grad is not None
    assert torch.equal(p, before)


def test_hooks_of_step_run_once_an_iteration():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    calls = []
    opt.register_step_pre_hook(lambda *_: calls.append("before"))
    opt.register_step_post_hook(lambda *_: calls.append("after"))
    train(model, opt, range(2))
    assert calls == ["before", "after"] * 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
@pytest.mark.parametrize("fused", [False, True])
def test_a_copy_of_the_optimizer_is_ordinary(duplicate, fused):
    model = make_model()
    opt = onepass.AdamW(model.parameters(), lr=0.1, fused=fused)
    onepass.release_gradients(model, opt)
    train(model, opt, range(2))
    other = duplicate(opt)
    p = other.param_groups[0]["params"][0]
    before = p.detach().clone()
    p.square().sum().backward()
    assert p.grad is not None
    assert torch.equal(p, before)
    other.step()
    assert not torch.equal(p, before)
    assert other._step_supports_amp_scaling == fused
    train(model, opt, range(2, 4))


def test_a_copy_of_model_and_optimizer_can_be_released_anew():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    train(model, opt, range(2))
    other_model, other = copy.deepcopy((model, opt))
    onepass.release_gradients(other_model, other)
    train(model, opt, range(2, 5))
    train(other_model, other, range(2, 5))
    assert_same(everything(model, opt), everything(other_model, other))


def test_two_optimizers_may_share_a_model_but_no_parameter():
    results = []
    for release in (False, True):
        model = make_model()
        ours = onepass.SGD(model["last"].parameters(), lr=0.1)
        rest = [p for name, p in model.named_parameters() if not name.startswith("last")]
        other = onepass.AdamW(rest, lr=0.01)
        if release:
            onepass.release_gradients(model, ours)
            onepass.release_gradients(model, other)
            with pytest.raises(ValueError, match=r"last\.weight, last\.bias are released already"):
                onepass.release_gradients(model, onepass.SGD(model["last"].parameters(), lr=0.1))
        for t in range(4):
            loss_of(model, t).backward()
            for opt in (ours, other):
                opt.step()
                opt.zero_grad()
        results.append([everything(model, ours), everything(model, other)])
    for pair in zip(*results, strict=True):
        assert_same(*pair)


def test_nothing_is_kept_alive():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    train(model, opt, range(2))
    watched = [weakref.ref(model), weakref.ref(opt), weakref.ref(model["last"].weight)]
    del model, opt
    gc.collect()
    assert [ref() for ref in watched] == [None] * 3


def test_an_optimizer_that_was_dropped_releases_nothing():
    model = make_model()
    opt = make(model)
    onepass.release_gradients(model, opt)
    del opt
    gc.collect()
    loss_of(model, 0).backward()
    assert model["last"].weight.grad is not None
    model.zero_grad()
    other = make(model)
    onepass.release_gradients(model, other)
    train(model, other, range(3))
