"""What changes between steps: gradients that come and go, tensors that are replaced, groups and states that change."""

import copy
import random

import pytest
import torch
from parity import FAST, hold, parameters

import onepass


def create(name, params, backend, **options):
    return onepass.create(name, params, backend=backend, **options)


def pair(build, params):
    """The same optimizer for the kernels and for the reference, over equal parameters."""
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    return (params, build(params, FAST)), (twins, build(twins, "reference"))


def gradients(params, twins, generator, mask=None):
    for i, (p, q) in enumerate(zip(params, twins, strict=True)):
        g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        p.grad = q.grad = None
        if mask is None or mask[i]:
            p.grad, q.grad = g, g.clone()


def assert_alike(params, twins, fast, slow, rtol=1e-9):
    for p, q in zip(params, twins, strict=True):
        assert torch.allclose(p, q, rtol=rtol, atol=rtol)
        mine, other = fast.state[p], slow.state[q]
        for key in mine.keys() & other.keys():
            assert torch.allclose(mine[key].double(), other[key].double(), rtol=rtol, atol=rtol), key


def random_mask(seed):
    """The same coins for whoever asks, one for each parameter and step."""
    return lambda p, generator, t: (
        torch.randn(p.shape, generator=generator).to(p.dtype) * 0.5
        if random.Random(f"{seed} {t} {tuple(p.shape)}").random() < 0.6
        else None
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("radam", {}),
        ("ranger", {"k": 3}),
        ("nadam", {}),
        ("sgd", {"momentum": 0.9, "dampening": 0.5}),
        ("adamw", {"transforms": [onepass.lookahead(k=2), onepass.clip_norm(1.0)]}),
    ],
    ids=["radam", "ranger", "nadam", "sgd", "adamw with clip_norm and lookahead"],
)
def test_parameters_without_gradients_now_and_then(name, options, dtype):
    """Warm-ups and synchronisations then come at different steps for different parameters, in one launch each."""
    shapes = ((5, 3), (17,), (), (4, 4), (3, 1), (6,))
    steps = 40 if FAST == "cpu" else 12
    opt = hold(
        lambda params, backend: create(name, params, backend, **options),
        dtype,
        shapes=shapes,
        steps=steps,
        gradient=random_mask(7),
    )
    counts = [int(state["step"]) for state in opt.state.values()]
    assert len(set(counts)) > 2
    assert all(steps // 4 < count < steps for count in counts)


def test_a_step_without_any_gradient_does_nothing():
    params = parameters(torch.float32)
    opt = onepass.AdamW(params, transforms=[onepass.clip_norm(1.0)])
    before = [p.detach().clone() for p in params]
    opt.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    assert opt.last_grad_norm is None


def double_parameters(count=4, shape=(5, 3), seed=0):
    return parameters(torch.float64, [shape] * count, seed)


MOVES = {
    "other storage": lambda p: p.data.clone(),
    "a view of something larger": lambda p: torch.cat([p.data.flatten(), p.data.flatten()])[: p.numel()].view_as(p),
    "channels last": lambda p: p.data.t().contiguous().t(),
    "other values at the same address": lambda p: p.data.mul_(0.5),
}


@pytest.mark.parametrize("move", MOVES)
def test_parameters_given_new_data(move):
    (params, fast), (twins, slow) = pair(lambda ps, b: create("adamw", ps, b), double_parameters())
    generator = torch.Generator().manual_seed(0)
    for t in range(9):
        if t in (3, 6):
            for p, q in list(zip(params, twins, strict=True))[: 4 if t == 3 else 2]:
                p.data, q.data = MOVES[move](p), MOVES[move](q)
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert_alike(params, twins, fast, slow)


def test_a_square_parameter_transposed_in_place():
    """Same address, same size, other strides: the elements of its states do not move with it."""
    (params, fast), (twins, slow) = pair(lambda ps, b: create("adamw", ps, b), double_parameters(2, (4, 4)))
    generator = torch.Generator().manual_seed(0)
    for t in range(6):
        if t == 3:
            for p in (*params, *twins):
                p.data = p.data.t()
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert_alike(params, twins, fast, slow)


def test_a_parameter_given_another_shape():
    (params, fast), (twins, slow) = pair(lambda ps, b: create("sgd", ps, b), double_parameters())
    generator = torch.Generator().manual_seed(0)
    for t in range(6):
        if t == 3:
            for p in (params[1], twins[1]):
                p.data = p.data[:2].clone()
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert_alike(params, twins, fast, slow)


@pytest.mark.parametrize("to", [torch.bfloat16, torch.float64], ids=str)
def test_parameters_cast_after_construction_and_after_steps(to):
    def build(ps, backend):
        return create("adamw", ps, backend, transforms=[onepass.lookahead(k=2)])

    (params, fast), (twins, slow) = pair(build, parameters(torch.float32, [(5, 3), (17,)]))
    generator = torch.Generator().manual_seed(0)
    for t in range(6):
        if t in (0, 3):
            for p in (params[t % 2], twins[t % 2]):
                # A gradient of the old type would not fit.
                p.grad = None
                p.data = p.data.to(to)
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert params[t % 2].dtype in (torch.float32, to)
        assert_alike(params, twins, fast, slow, rtol=1e-2 if to is torch.bfloat16 else 1e-5)


def test_states_replaced_by_the_user():
    (params, fast), (twins, slow) = pair(lambda ps, b: create("adamw", ps, b), double_parameters())
    generator = torch.Generator().manual_seed(0)
    for t in range(8):
        if t == 3:
            for opt, ps in ((fast, params), (slow, twins)):
                opt.state[ps[1]]["exp_avg"] = torch.zeros(5, 3, dtype=torch.float64)
                opt.state[ps[2]]["exp_avg_sq"].mul_(4)
                opt.state[ps[3]]["exp_avg"] = opt.state[ps[3]]["exp_avg"].t().contiguous().t()
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert_alike(params, twins, fast, slow)


def test_step_counts_edited_in_place_or_replaced_take_effect():
    (params, fast), (twins, slow) = pair(lambda ps, b: create("radam", ps, b), double_parameters())
    generator = torch.Generator().manual_seed(0)
    for t in range(8):
        if t == 2:
            for opt, ps in ((fast, params), (slow, twins)):
                opt.state[ps[0]]["step"].fill_(100.0)
                opt.state[ps[1]]["step"] += 3
                opt.state[ps[2]]["step"] = torch.tensor(50.0)
        if t == 5:
            for opt in (fast, slow):
                for state in opt.state.values():
                    state["step"].fill_(7.0)
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert_alike(params, twins, fast, slow)
    assert {int(state["step"]) for state in fast.state.values()} == {10}


def test_scalar_states_edited_in_place_take_effect():
    (params, fast), (twins, slow) = pair(lambda ps, b: create("nadam", ps, b), double_parameters())
    generator = torch.Generator().manual_seed(0)
    for t in range(5):
        if t == 2:
            for opt, ps in ((fast, params), (slow, twins)):
                opt.state[ps[1]]["mu_product"].fill_(0.25)
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert_alike(params, twins, fast, slow)


@pytest.mark.parametrize("into", ["itself", "a new optimizer"])
@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_a_checkpoint_loaded_in_mid_run(name, into):
    options = {"momentum": 0.9} if name == "sgd" else {}
    params = double_parameters()
    opt = create(name, params, FAST, **options)
    generator = torch.Generator().manual_seed(0)

    def run(optimizer, steps):
        for t in steps:
            gradients(params, params, generator, [t != 6, True, t % 3 > 0, True])
            optimizer.step()

    run(opt, range(4))
    saved = copy.deepcopy(opt.state_dict())
    values, numbers = [p.detach().clone() for p in params], generator.get_state()
    run(opt, range(4, 12))
    end = [p.detach().clone() for p in params]
    target = opt if into == "itself" else create(name, params, FAST, **options)
    target.load_state_dict(saved)
    for p, value in zip(params, values, strict=True):
        p.data.copy_(value)
    generator.set_state(numbers)
    run(target, range(4, 12))
    assert all(torch.equal(p, q) for p, q in zip(params, end, strict=True))


def test_states_dropped_by_the_user_start_anew():
    (params, fast), (twins, slow) = pair(lambda ps, b: create("adamw", ps, b), double_parameters(3))
    generator = torch.Generator().manual_seed(0)
    for t in range(6):
        if t == 2:
            del fast.state[params[0]], slow.state[twins[0]]
        if t == 4:
            fast.state.clear()
            slow.state.clear()
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert [s["step"] for s in fast.state.values()] == [s["step"] for s in slow.state.values()]
        assert_alike(params, twins, fast, slow)


def test_a_copy_of_the_optimizer_shares_nothing_with_it():
    params = double_parameters()
    opt = create("adamw", params, FAST)
    generator = torch.Generator().manual_seed(0)
    gradients(params, params, generator)
    opt.step()
    others, twin = copy.deepcopy((params, opt))
    before = [p.detach().clone() for p in params], [s["step"].clone() for s in opt.state.values()]
    gradients(params, others, generator)
    twin.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before[0], strict=True))
    assert [s["step"] for s in opt.state.values()] == before[1]
    opt.step()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_groups_added_later_and_groups_that_differ():
    def build(ps, backend):
        groups = [
            {"params": ps[:1], "lr": 0.1, "weight_decay": 0.0},
            {"params": ps[1:2], "lr": torch.tensor(0.01, dtype=torch.float64), "betas": (0.5, 0.9)},
            {"params": ps[2:3], "weight_decay": onepass.decay.l2(0.3), "maximize": True},
        ]
        return create("adamw", groups, backend, weight_decay=0.1, transforms=[onepass.lookahead(k=3)])

    (params, fast), (twins, slow) = pair(build, double_parameters(6))
    generator = torch.Generator().manual_seed(0)
    for t in range(12):
        if t == 4:
            fast.add_param_group({"params": params[3:5], "eps": 1e-2, "lookahead_k": 2})
            slow.add_param_group({"params": twins[3:5], "eps": 1e-2, "lookahead_k": 2})
        if t == 7:
            for opt in (fast, slow):
                opt.param_groups[0].update(lr=0.02, weight_decay=0.5)
                opt.param_groups[1]["lr"].mul_(3)
                opt.param_groups[2]["weight_decay"] = 0.0
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert_alike(params, twins, fast, slow)
    untouched = double_parameters(6)[5]
    assert torch.equal(params[5], untouched)


def test_a_parameter_frozen_and_thawed():
    (params, fast), (twins, slow) = pair(lambda ps, b: create("ranger", ps, b, k=2), double_parameters(3))
    inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in range(9):
        for ps, opt in ((params, fast), (twins, slow)):
            ps[1].requires_grad_(not 2 <= t < 6)
            opt.zero_grad()
            sum((inputs @ p).tanh().sum() for p in ps).backward()
            opt.step()
        assert_alike(params, twins, fast, slow)
    assert [int(fast.state[p]["step"]) for p in params] == [9, 5, 9]


def test_tied_weights_step_once():
    embedding, head = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7, bias=False)
    head.weight = embedding.weight
    model = torch.nn.Sequential(embedding, head)
    opt = onepass.AdamW(model.parameters())
    tokens = torch.tensor([1, 2, 3])
    for _ in range(3):
        opt.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens), tokens).backward()
        opt.step()
    assert len(opt.state) == 1
    assert opt.state[embedding.weight]["step"] == 3


def test_two_optimizers_take_turns_on_the_same_parameters():
    params = double_parameters(2)
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    mine = [create("adamw", params, FAST), create("sgd", params, FAST, lr=0.1)]
    others = [create("adamw", twins, "reference"), create("sgd", twins, "reference", lr=0.1)]
    generator = torch.Generator().manual_seed(0)
    for t in range(6):
        gradients(params, twins, generator)
        mine[t % 2].step()
        others[t % 2].step()
    assert_alike(params, twins, mine[0], others[0])


def test_types_may_be_mixed_in_one_optimizer():
    dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
    params = [torch.nn.Parameter(p.detach().to(d)) for d in dtypes for p in parameters(torch.float32, [(33,), (4, 3)])]
    stack = [onepass.clip_norm(0.5), onepass.lookahead(k=2), onepass.average(0.9)]
    (params, fast), (twins, slow) = pair(lambda ps, b: create("adamw", ps, b, transforms=stack), params)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradients(params, twins, generator)
        fast.step()
        slow.step()
        assert fast.last_grad_norm == pytest.approx(slow.last_grad_norm, rel=1e-5)
    for p, q in zip(params, twins, strict=True):
        eps = torch.finfo(p.dtype).eps
        assert torch.allclose(p.double(), q.double(), rtol=4 * max(eps, 1e-6))
        assert fast.state[p]["average"].dtype == torch.promote_types(p.dtype, torch.float32)
