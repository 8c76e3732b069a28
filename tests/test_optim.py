"""The front: construction, groups, hyperparameters on the fly, closures, flags, copies, checkpoints, errors."""

import copy
import io
import os
import pickle
import subprocess
import sys

import pytest
import torch
from helpers import parameters, relative_error, set_gradients

import onepass
from onepass import decay, ema, rule, sign

ALL = onepass.list_optimizers()


@rule
def signum(g, m, *, momentum=0.9):
    """Step by the sign of the averaged gradient."""
    m = ema(m, g, momentum)
    return sign(m), m


Signum = onepass.optimizer(signum)


def steps(opt, params, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        set_gradients(params, generator)
        opt.step()


@pytest.mark.parametrize("name", ALL)
def test_is_a_torch_optimizer_and_takes_closures(name):
    params = parameters()
    opt = onepass.create(name, params)
    assert isinstance(opt, torch.optim.Optimizer)

    def closure():
        assert torch.is_grad_enabled()
        opt.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    loss = opt.step(closure)
    assert loss.requires_grad
    assert opt.step() is None


@pytest.mark.parametrize("name", ALL)
def test_hyperparameters_changed_in_the_group_take_effect_at_the_next_step(name):
    params, others = parameters(), parameters()
    changed, constructed = onepass.create(name, params, lr=0.5), onepass.create(name, others, lr=0.01, weight_decay=0.2)
    changed.param_groups[0].update(lr=0.01, weight_decay=0.2)
    steps(changed, params, 3)
    steps(constructed, others, 3)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_a_zero_learning_rate_changes_no_bit(name):
    params = parameters()
    before = [p.detach().clone() for p in params]
    steps(onepass.create(name, params, lr=0.0, weight_decay=0.1), params, 12)
    assert all(torch.equal(p.detach(), q) for p, q in zip(params, before, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_maximize_is_descent_on_the_negative(name):
    up, down = parameters(), parameters()
    climbing, descending = onepass.create(name, up, maximize=True), onepass.create(name, down)
    generator = torch.Generator().manual_seed(1)
    for _ in range(12):
        set_gradients(up, generator)
        for p, q in zip(up, down, strict=True):
            q.grad = -p.grad
        climbing.step()
        descending.step()
    # Where a product is contracted with a sum, its sign decides which of the two is rounded.
    assert relative_error([p.detach() for p in up], [q.detach() for q in down]) < 1e-14


@pytest.mark.parametrize("form", ["l2", "decoupled", "independent", "cautious"])
@pytest.mark.parametrize("name", ALL)
def test_every_optimizer_offers_every_form_of_decay(name, form):
    params, plain = parameters(), parameters()
    opt = onepass.create(name, params, lr=0.01, weight_decay=getattr(decay, form)(0.1))
    assert opt.param_groups[0]["weight_decay"] == 0.1
    before = [p.detach().clone() for p in params]
    for p in params + plain:
        p.grad = torch.zeros_like(p)
    opt.step()
    # Without a gradient there is no step, which no decay is cautious of.
    expected = {"decoupled": 1 - 0.01 * 0.1, "independent": 1 - 0.1, "cautious": 1 - 0.01 * 0.1}
    for p, old in zip(params, before, strict=True):
        if form == "l2":
            assert (p * old <= old * old).all()
            assert not torch.equal(p, old)
        else:
            assert torch.allclose(p, expected[form] * old, rtol=1e-14)


def test_a_plain_float_means_the_form_torch_gives_the_class():
    forms = {name: onepass.create(name, parameters()).decay_form_of({}) for name in ALL}
    coupled = {"adadelta", "adagrad", "adam", "adamax", "nadam", "radam", "rmsprop", "sgd"}
    assert {name for name, form in forms.items() if form == "l2"} == coupled
    adam = onepass.Adam(parameters(), weight_decay=0.1)
    assert adam.decay_form_of(adam.param_groups[0]) == "l2"
    adam.param_groups[0]["decoupled_weight_decay"] = True
    assert adam.decay_form_of(adam.param_groups[0]) == "decoupled"


def test_a_form_can_be_given_to_a_group_and_later():
    a, b, c, d = parameters()
    opt = onepass.AdamW(
        [{"params": [a], "weight_decay": decay.l2(0.1)}, {"params": [b]}, {"params": [c, d], "weight_decay": 0.0}]
    )
    assert [opt.decay_form_of(group) for group in opt.param_groups] == ["l2", "decoupled", "decoupled"]
    opt.param_groups[1]["weight_decay"] = decay.independent(0.2)
    steps(opt, [a, b, c, d], 1)
    assert opt.param_groups[1]["weight_decay"] == 0.2
    assert opt.decay_form_of(opt.param_groups[1]) == "independent"


def test_independent_decay_takes_the_height_of_torch_schedules():
    (p,) = parameters(shapes=((3,),))
    opt = onepass.SGD([p], lr=0.1, weight_decay=decay.independent(0.1))
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.4, total_steps=10, cycle_momentum=False)
    before = p.detach().clone()
    p.grad = torch.zeros_like(p)
    opt.step()
    assert torch.allclose(p, before * (1 - 0.1 * (0.4 / 25) / 0.4), rtol=1e-12)
    del schedule
    fixed = onepass.SGD([p], lr=0.1, weight_decay=decay.independent(0.1, lr_max=0.2))
    before = p.detach().clone()
    fixed.step()
    assert torch.allclose(p, before * (1 - 0.1 * 0.5), rtol=1e-12)


def test_what_list_shows_agrees_with_a_real_step():
    described = {d.name: d for d in onepass.describe()}
    assert list(described) == ALL
    for name, description in described.items():
        params = parameters(dtype=torch.float32)
        opt = onepass.create(name, params)
        for p in params:
            p.grad = torch.ones_like(p)
        opt.step()
        tensors = {key for key, value in opt.state[params[0]].items() if value.shape == params[0].shape}
        assert tensors == set(description.states)
    assert described["adamw"].bytes_per_parameter == 28
    assert described["sgd"].bytes_per_parameter == 12
    assert described["ranger"].bytes_per_parameter == pytest.approx(28 + 8 / 6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_checkpoint_continues_bit_for_bit(name, dtype):
    options = {"transforms": [onepass.lookahead(k=3)]} if name != "ranger" else {}
    whole = parameters(dtype=dtype)
    opt = onepass.create(name, whole, weight_decay=0.1, **options)
    steps(opt, whole, 7)
    buffer = io.BytesIO()
    torch.save({"opt": opt.state_dict(), "params": [p.detach() for p in whole]}, buffer)
    steps(opt, whole, 7, seed=2)

    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    resumed = [torch.nn.Parameter(p) for p in saved["params"]]
    again = onepass.create(name, resumed, **options)
    again.load_state_dict(saved["opt"])
    steps(again, resumed, 7, seed=2)
    assert all(torch.equal(p, q) for p, q in zip(whole, resumed, strict=True))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
@pytest.mark.parametrize("cls", [onepass.Ranger, onepass.NAdam, Signum])
def test_copies_behave_like_the_original(cls, duplicate):
    params = parameters()
    opt = cls(params, transforms=[onepass.cautious()])
    steps(opt, params, 3)
    twin = duplicate(opt)
    twins = twin.param_groups[0]["params"]
    steps(opt, params, 5, seed=2)
    steps(twin, twins, 5, seed=2)
    assert twins[0] is not params[0]
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


def test_init_state_allocates_with_a_count_of_zero():
    params = parameters()
    opt = onepass.Ranger(params)
    opt.init_state()
    assert all(opt.state[p]["step"] == 0 for p in params)
    assert torch.equal(opt.state[params[0]]["slow"], params[0])
    other = parameters()
    steps(opt, params, 8)
    steps(onepass.Ranger(other), other, 8)
    assert all(torch.equal(p, q) for p, q in zip(params, other, strict=True))


def test_a_checkpoint_of_torch_sgd_has_no_step_count_and_still_continues():
    ours, theirs = parameters(), parameters()
    other = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, dampening=0.5, foreach=False)
    steps(other, theirs, 4)
    mine = onepass.SGD(ours, lr=0.1, momentum=0.9, dampening=0.5)
    mine.load_state_dict(other.state_dict())
    for p, q in zip(ours, theirs, strict=True):
        p.data.copy_(q.data)
    steps(other, theirs, 4, seed=2)
    steps(mine, ours, 4, seed=2)
    assert relative_error([p.detach() for p in ours], [q.detach() for q in theirs]) < 1e-14


def test_a_rule_of_ones_own():
    params = parameters()
    opt = Signum(params, 0.1, momentum=0.5, weight_decay=0.1)
    before = [p.detach().clone() for p in params]
    steps(opt, params, 1)
    for p, old in zip(params, before, strict=True):
        assert torch.allclose(p, old * (1 - 0.01) - 0.1 * p.grad.sign())
    assert Signum.__name__ == "Signum"
    with pytest.raises(TypeError, match="missing a required argument: 'params'"):
        Signum()
    with pytest.raises(ValueError, match="one of l2, decoupled, independent, cautious, not 'coupled'"):
        onepass.optimizer(signum, weight_decay="coupled")


def test_a_rule_that_takes_lr_returns_the_whole_step():
    @rule
    def clipped_step(g, lr):
        return onepass.minimum(onepass.maximum(lr * g, -0.01), 0.01)

    params = parameters()
    before = [p.detach().clone() for p in params]
    steps(onepass.optimizer(clipped_step)(params, lr=100.0), params, 1)
    for p, old in zip(params, before, strict=True):
        assert torch.allclose((p - old).abs(), torch.full_like(p, 0.01))


def test_a_norm_over_the_model_spans_groups_of_different_programs():
    @rule
    def normalized(g):
        return g / onepass.norm(g, over="model")

    params = parameters()
    opt = onepass.optimizer(normalized)(
        [{"params": params[:2], "weight_decay": 0.1}, {"params": params[2:], "maximize": True}], lr=1.0
    )
    before = [p.detach().clone() for p in params]
    steps(opt, params, 1)
    norm = torch.cat([p.grad.flatten() for p in params]).norm()
    for p, old in zip(params[:2], before[:2], strict=True):
        assert torch.allclose(p, old * 0.9 - p.grad / norm, rtol=1e-12)
    for p, old in zip(params[2:], before[2:], strict=True):
        assert torch.allclose(p, old + p.grad / norm, rtol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "adam", "ranger"])
def test_autograd_follows_a_differentiable_step(name):
    def after_steps(start, gradient):
        p = start.clone()
        opt = onepass.create(name, [p], lr=0.1, differentiable=True, **({"momentum": 0.9} if name == "sgd" else {}))
        for _ in range(7):
            # The step overwrites p, which autograd would need for the product.
            p.grad = gradient * p.clone()
            opt.step()
        return p

    start = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    gradient = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(after_steps, (start, gradient))


def test_a_tensor_learning_rate_stays_a_tensor():
    params, others = parameters(), parameters()
    opt = onepass.Adam(params, lr=torch.tensor(0.01, dtype=torch.float64))
    steps(opt, params, 3)
    steps(onepass.Adam(others, lr=0.01), others, 3)
    assert isinstance(opt.param_groups[0]["lr"], torch.Tensor)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_transforms_put_their_hyperparameters_in_the_groups():
    params, others = parameters(), parameters()
    opt = onepass.SGD(params, 0.1, transforms=[onepass.lookahead(k=5), onepass.clip_value(3.0)])
    assert opt.param_groups[0]["lookahead_k"] == 5
    opt.param_groups[0].update(lookahead_k=2, clip_value_limit=0.1)
    steps(opt, params, 5)
    fresh = onepass.SGD(others, 0.1, transforms=[onepass.lookahead(k=2), onepass.clip_value(0.1)])
    steps(fresh, others, 5)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_importing_is_light():
    heavy = ["matplotlib", "optuna", "triton", "jax", "typer", "rich", "sklearn", "numba", "scipy", "jinja2"]
    code = f"import sys, onepass; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_reduction_over_complex_numbers_is_an_error():
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    opt = onepass.SGD([p], transforms=[onepass.cautious()], backend="reference")
    with pytest.raises(RuntimeError, match="reductions over complex parameters"):
        opt.step()


def test_a_numba_that_does_not_work_means_the_reference_and_one_warning(tmp_path):
    """Broken, not absent: it is found, and importing it raises."""
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("raise SystemError('initialization of _internal failed')")
    code = """
import warnings, torch, onepass
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for backend in (None, None, "cpu"):
        p = torch.nn.Parameter(torch.ones(3))
        p.grad = torch.ones(3)
        try:
            onepass.SGD([p], lr=1.0, backend=backend).step()
            print(p.tolist())
        except RuntimeError as error:
            print("refused:", error)
print(len(caught), caught[0].message)
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "ONEPASS_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["[0.0, 0.0, 0.0]"] * 2, done.stderr
    assert lines[2].startswith("refused: backend='cpu' cannot serve: Numba cannot be imported")
    assert lines[3].startswith("1 onepass: the reference runs, not a compiled kernel: Numba cannot be imported")
