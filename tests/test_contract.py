"""What torch, its tools and the frameworks count on, beyond the laws: the class, the step, the state, the flags."""

import copy
import inspect
import pickle

import pytest
import torch
from helpers import parameters, set_gradients

import onepass
from onepass.optim import get_class

ALL = onepass.list_optimizers()
FLAGS = [
    (name, flag)
    for name in ALL
    for flag in ("foreach", "fused")
    if flag in inspect.signature(get_class(name)).parameters
]


def walked(opt, params, count=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        set_gradients(params, generator)
        opt.step()
    return [p.detach().clone() for p in params]


@pytest.mark.parametrize("name", ALL)
def test_the_class_is_a_plain_one(name):
    """Lightning makes a subclass of it at run time, and a GradScaler asks for a parameter called grad_scaler."""
    cls = get_class(name)
    assert type(cls) is type
    assert not any("__slots__" in vars(base) for base in cls.__mro__[:-1])
    step = inspect.signature(cls.step).parameters
    assert list(step) == ["self", "closure"]
    assert step["closure"].default is None


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ALL)
def test_step_counts_are_float32_numbers_on_the_host(name, backend):
    params = parameters(dtype=torch.bfloat16)
    opt = onepass.create(name, params, backend=backend)
    assert opt.state_dict()["state"] == {}
    walked(opt, params)
    for state in opt.state_dict()["state"].values():
        assert (state["step"].shape, state["step"].dtype, state["step"].device.type) == ((), torch.float32, "cpu")
        assert state["step"] == 4


@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_torchs_choice_of_loops_changes_no_bit(name, flag):
    results = []
    for value in (None, False, True):
        params = parameters()
        results.append(walked(onepass.create(name, params, **{flag: value}), params))
    for result in results[1:]:
        assert all(torch.equal(p, q) for p, q in zip(result, results[0], strict=True))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_keep_what_stands_in_no_group(duplicate):
    params = parameters()
    opt = onepass.AdamW(
        params, skip_nonfinite=True, backend="reference", fused=True, transforms=[onepass.clip_norm(0.5)]
    )
    walked(opt, params)
    params[0].grad = torch.full_like(params[0], float("nan"))
    opt.step()
    twin = duplicate(opt)
    assert (twin.skipped_steps, twin.backend, twin._step_supports_amp_scaling) == (1, "reference", True)
    kept = [p.detach().clone() for p in twin.param_groups[0]["params"]]
    for p in twin.param_groups[0]["params"]:
        p.grad = torch.full_like(p, float("inf"))
    twin.step()
    assert twin.skipped_steps == 2
    assert opt.skipped_steps == 1
    assert all(torch.equal(p, q) for p, q in zip(twin.param_groups[0]["params"], kept, strict=True))


def test_how_a_step_is_taken_is_the_constructors_choice_and_not_the_checkpoints():
    params, others = parameters(), parameters()
    fused = torch.optim.AdamW(params, fused=True)
    walked(fused, params)
    opt, plain = onepass.AdamW(others, backend="reference"), onepass.AdamW(others, fused=True)
    opt.load_state_dict(fused.state_dict())
    assert not opt._step_supports_amp_scaling
    assert opt.backend == "reference"
    walked(opt, others)
    plain.load_state_dict(opt.state_dict())
    assert plain._step_supports_amp_scaling
    differentiable = torch.optim.AdamW([p.clone() for p in parameters()], differentiable=True)
    opt.load_state_dict({**opt.state_dict(), "param_groups": differentiable.state_dict()["param_groups"]})
    walked(opt, others)
    assert all(p.is_leaf and p.grad_fn is None for p in others)


def test_factories_pass_lists_and_keys_of_their_own():
    """As timm's: betas as a list out of YAML, and a scale for each group's rate that its own schedulers read."""
    params = parameters()
    options = {"lr": 5e-4, "weight_decay": 0.05, "betas": [0.9, 0.98], "eps": 1e-7}
    groups = [
        {"params": [p], "weight_decay": 0.0 if p.ndim < 2 else 0.05, "lr_scale": 0.5**i} for i, p in enumerate(params)
    ]
    opt = onepass.create("adamw", groups, **options)
    for group in opt.param_groups:
        group["lr"] = options["lr"] * group["lr_scale"]
    others = parameters()
    plain = [
        {"params": [q], "weight_decay": g["weight_decay"], "lr": g["lr"]}
        for q, g in zip(others, opt.param_groups, strict=True)
    ]
    other = torch.optim.AdamW(plain, betas=(0.9, 0.98), eps=1e-7)
    for p, q in zip(walked(opt, params), walked(other, others), strict=True):
        assert torch.allclose(p, q, rtol=1e-13, atol=1e-15)
    assert [group["lr_scale"] for group in opt.state_dict()["param_groups"]] == [1.0, 0.5, 0.25, 0.125]
