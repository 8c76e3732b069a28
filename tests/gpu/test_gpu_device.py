"""Step counts, step values, scales and skips that stay on the device; what is sent there, and when."""

import copy
import math

import interpreted
import numpy as np
import pytest
import torch
from parity import hold, parameters

import onepass

pytestmark = interpreted.only

if interpreted.INTERPRETED:
    from onepass.backends.triton import bucket, mirror
    from onepass.backends.triton.decide import choices
    from onepass.backends.triton.launch import Launch


def gradients(params, t, scale=1.0):
    generator = torch.Generator().manual_seed(t)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=generator)).to(p.dtype)


def state_of(opt):
    return [{key: value.clone() for key, value in state.items()} for state in opt.state.values()]


def alike(ours, theirs):
    return all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(ours, theirs, strict=True)
    )


def buckets_of(opt):
    return opt._runner().session.plan.buckets


# Steps that the device decides


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw", {}),
        ("radam", {"transforms": [onepass.clip_norm(1.0)]}),
        ("nadam", {"transforms": [onepass.clip_adaptive(), onepass.lookahead(k=2)]}),
        ("rmsprop", {"centered": True, "momentum": 0.9}),
        ("ranger", {"k": 3}),
        ("adadelta", {}),
        ("adamax", {}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_capturable_steps_do_what_the_reference_does(name, options, dtype):
    def make(params, backend):
        flags = {"capturable": True} if backend == "triton" and name != "ranger" else {}
        return onepass.create(name, params, backend=backend, **options, **flags, skip_nonfinite=name == "ranger")

    opt = hold(make, dtype, shapes=((5, 3), (17,)), steps=13)
    assert all(isinstance(b, bucket.DeviceBucket) for b in buckets_of(opt))


def room_for(program, values, t, scalars):
    """How far step values may move when the power function of another library rounds the other way.

    That is as if a hyperparameter moved by a unit in its last place: RAdam's rectification, a difference of numbers
    near 2,000 while it warms up, then moves by a million times as much.
    """
    exact = program.situation(values, t, 2, scalars).row
    room = [8 * math.ulp(value) for value in exact]
    for name, value in values.items():
        moved = program.situation({**values, name: math.nextafter(value, math.inf)}, t, 2, scalars)
        for i, (a, b) in enumerate(zip(exact, moved.row, strict=len(exact) == len(moved.row))):
            room[i] += 4 * abs(a - b)
    return room


@pytest.mark.parametrize("name", ["radam", "nadam", "adamw", "yogi", "ranger", "adagrad"])
def test_step_values_of_the_device_are_those_of_the_host(name):
    """In float64, to what a unit in the last place of the hyperparameters makes of them; at any step count."""
    group = {"lr_decay": 0.01} if name == "adagrad" else {}
    opt = onepass.create(name, [torch.nn.Parameter(torch.ones(4, 3))], backend="triton", skip_nonfinite=True, **group)
    (p,) = opt.param_groups[0]["params"]
    gradients([p], 0)
    opt.step()
    (b,) = buckets_of(opt)
    for t in (1, 2, 5, 6, 7, 100, 12345, 1_000_000):
        opt.state[p]["step"].fill_(t - 1)
        before = {key: float(opt.state[p][key]) for key in opt.program(opt.param_groups[0]).scalars}
        gradients([p], t)
        works = [opt._work(g) for g in opt.param_groups]
        opt.step()
        situation = b.program.situation(works[0].values, float(t), 2, tuple(before.values()))
        number = int(b.choices[0])
        assert choices(b.program, b.ndim)[number] is situation.variant
        part = next(part for part in b.plan.parts if part.choice == number)
        row = [b.whole.rows[0, place].item() for place in part.places]
        room = room_for(b.program, works[0].values, float(t), tuple(before.values()))
        for value, expected, allowed in zip(row, situation.row, room, strict=True):
            assert abs(value - expected) <= allowed, (t, value, expected)
        assert [float(opt.state[p][key]) for key in before] == pytest.approx(situation.after, rel=1e-14)
        assert opt.state[p]["step"] == t


def test_parameters_that_take_part_now_and_then_age_by_themselves():
    params, twins = parameters(torch.float64), parameters(torch.float64)
    opt = onepass.RAdam(params, capturable=True, backend="triton")
    other = onepass.RAdam(twins, backend="reference")
    for t in range(14):
        gradients(params, t)
        for i, (p, q) in enumerate(zip(params, twins, strict=True)):
            if (t + i) % 3 == 0:
                p.grad = None
            q.grad = None if p.grad is None else p.grad.clone()
        opt.step()
        other.step()
    for p, q in zip(params, twins, strict=True):
        assert torch.allclose(p, q, rtol=1e-12)
        assert opt.state[p]["step"] == other.state[q]["step"]


def test_a_learning_rate_that_is_a_tensor_is_read_by_the_kernel():
    params, twins = parameters(torch.float32), parameters(torch.float32)
    lr = torch.tensor(0.1)
    opt = onepass.Adam(params, lr=lr, capturable=True, backend="triton")
    other = onepass.Adam(twins, lr=0.1, backend="triton")
    for t in range(4):
        if t == 2:
            lr.fill_(0.01)
            other.param_groups[0]["lr"] = float(lr)
        gradients(params, t)
        gradients(twins, t)
        opt.step()
        other.step()
    assert all(torch.allclose(p, q, rtol=1e-6) for p, q in zip(params, twins, strict=True))


def test_capturable_means_on_a_cpu_what_it_means_in_torch():
    (p,) = params = parameters(torch.float32, [(3,)])
    p.grad = torch.ones(3)
    opt = onepass.AdamW(params, capturable=True, backend="cpu")
    with pytest.raises(
        RuntimeError, match=r"capturable=True .* a parameter is on cpu: step on a GPU, or leave it False"
    ):
        opt.step()
    assert torch.equal(p, parameters(torch.float32, [(3,)])[0])
    onepass.AdamW(params, capturable=True, fused=True, backend="cpu").step()


def test_checkpoints_go_to_torchs_capturable_and_back():
    params = parameters(torch.float32)
    opt = onepass.AdamW(params, capturable=True, backend="triton")
    for t in range(3):
        gradients(params, t)
        opt.step()
    theirs = torch.optim.AdamW(params, capturable=True)
    theirs.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert {float(state["step"]) for state in theirs.state.values()} == {3.0}
    again = onepass.AdamW(parameters(torch.float32), capturable=True, backend="triton")
    again.load_state_dict(copy.deepcopy(theirs.state_dict()))
    others = again.param_groups[0]["params"]
    with torch.no_grad():
        for p, q in zip(params, others, strict=True):
            q.copy_(p)
    gradients(params, 9)
    gradients(others, 9)
    opt.step()
    again.step()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert alike(state_of(opt), state_of(again))


# Scales and skips


@pytest.mark.parametrize("shape", [(), (1,)])
def test_found_inf_is_read_by_the_kernel_and_leaves_everything(shape, monkeypatch):
    params = parameters(torch.float32)
    opt = onepass.NAdam(params, capturable=True, backend="triton", transforms=[onepass.clip_norm(1.0)])
    gradients(params, 0)
    opt.step()
    before, states = [p.detach().clone() for p in params], state_of(opt)
    opt.found_inf = torch.full(shape, 2.0)
    gradients(params, 1)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "item", lambda self: pytest.fail("the host has read a tensor"))
        patch.setattr(torch.Tensor, "__float__", lambda self: pytest.fail("the host has read a tensor"))
        opt.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert alike(state_of(opt), states)
    opt.found_inf = torch.zeros(shape)
    opt.step()
    assert not torch.equal(params[0], before[0])
    del opt.found_inf
    opt.step()
    assert {float(state["step"]) for state in opt.state.values()} == {3.0}


def test_a_scaler_on_the_device(monkeypatch):
    params, twins = parameters(torch.float32), parameters(torch.float32)
    opt, plain = onepass.AdamW(params, fused=True, backend="triton"), onepass.AdamW(twins, backend="triton")
    opt.grad_scale, opt.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    for t in range(3):
        gradients(params, t, scale=1024.0)
        gradients(twins, t)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "item", lambda self: pytest.fail("the host has read a tensor"))
            opt.step()
        plain.step()
    assert all(torch.allclose(p, q, rtol=1e-6) for p, q in zip(params, twins, strict=True))
    assert opt._step_supports_amp_scaling


def test_torchs_scaler_with_overflows():
    def train(overflow_at):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        opt = onepass.AdamW(model.parameters(), lr=0.01, fused=True, backend="triton")
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=4)
        for t in range(8):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(t))
            opt.zero_grad()
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            if t in overflow_at:
                loss = loss * math.inf
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
        return opt.state[model.weight]["step"].item()

    assert (train(()), train((2, 5))) == (8, 6)


def test_steps_that_are_not_finite_are_skipped_and_counted_by_the_device():
    params = parameters(torch.float32)
    opt = onepass.AdamW(params, skip_nonfinite=True, backend="triton", transforms=[onepass.clip_norm(1.0)])
    for t in range(6):
        gradients(params, t)
        if t % 2:
            params[1].grad[3] = (math.nan, math.inf, -math.inf)[t // 2]
        before, states = [p.detach().clone() for p in params], state_of(opt)
        opt.step()
        same = all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
        assert same == bool(t % 2)
        if t % 2:
            assert alike(state_of(opt), states)
    assert opt.skipped_steps == 3
    assert {float(state["step"]) for state in opt.state.values()} == {3.0}
    # The count outlives the sessions that made it.
    opt.load_state_dict(opt.state_dict())
    assert opt.skipped_steps == 3
    assert copy.deepcopy(opt).skipped_steps == 3


def test_a_schedule_does_not_count_what_the_device_skips():
    (p,) = params = parameters(torch.float32, [(3,)])
    opt = onepass.SGD(params, lr=onepass.schedules.linear(1.0, 0.0, 10), skip_nonfinite=True, backend="triton")
    for t in range(4):
        p.grad = torch.full((3,), math.nan if t == 1 else 1.0)
        opt.step()
    assert (opt.skipped_steps, opt.param_groups[0]["schedule_step"]) == (1, 3)


def test_reports_are_read_when_they_are_asked_for():
    params = parameters(torch.float32)
    opt = onepass.SGD(params, backend="triton", transforms=[onepass.clip_norm(1.0)])
    gradients(params, 0)
    expected = math.sqrt(sum(float(p.grad.double().square().sum()) for p in params))
    opt.step()
    assert opt._reports._read is not None
    assert opt.last_grad_norm == pytest.approx(expected, rel=1e-6)
    assert opt._reports._read is None


# What is sent


def test_a_second_step_sends_nothing_but_step_values():
    params = parameters(torch.float32)
    opt = onepass.AdamW(params, backend="triton", transforms=[onepass.clip_norm(1.0)])
    gradients(params, 0)
    opt.step()
    (b, *_) = buckets_of(opt)
    (launch,) = b.usual.values()
    sends = [b.sent_table.sends, launch.sent_chunks.sends, launch.sent_values.sends]
    for _ in range(3):
        opt.step()
    assert [b.sent_table.sends, launch.sent_chunks.sends] == sends[:2]
    assert launch.sent_values.sends == sends[2] + 3
    # A gradient elsewhere is told.
    params[0].grad = params[0].grad.clone()
    opt.step()
    assert sum(each.sent_table.sends for each in buckets_of(opt)) == len(buckets_of(opt)) + 1


def test_a_capturable_step_sends_nothing_at_all():
    params = parameters(torch.float32)
    opt = onepass.AdamW(params, capturable=True, backend="triton")
    gradients(params, 0)
    opt.step()
    mirrors = [m for b in buckets_of(opt) for m in (b.sent_table, b.roster, b.hyper, b.whole.sent_chunks)]
    before = [m.sends for m in mirrors]
    opt.step()
    assert [m.sends for m in mirrors] == before
    opt.param_groups[0]["lr"] = 0.5
    opt.step()
    assert sum(m.sends for m in mirrors) == sum(before) + len(buckets_of(opt))


def test_after_the_first_step_nothing_is_written_allocated_or_compiled(monkeypatch):
    params = parameters(torch.float32)
    opt = onepass.AdamW(params, backend="triton", transforms=[onepass.clip_norm(1.0)])
    gradients(params, 0)
    opt.step()
    for owner, name in ((torch, "zeros"), (torch, "empty"), (torch, "tensor"), (Launch, "__init__")):
        monkeypatch.setattr(owner, name, lambda *args, **more: pytest.fail("something was made anew"))
    opt.step()


class Events:
    """Copies that are over when they are told to be."""

    def __init__(self):
        self.over = False

    def query(self):
        return self.over

    def record(self, stream):
        self.over = False


def test_the_ring_waits_for_no_copy(monkeypatch):
    """A buffer whose copy is under way is left alone; there is one buffer more instead."""
    module = type("Module", (), {"Event": Events, "current_stream": staticmethod(lambda device: None)})
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    monkeypatch.setattr(mirror.Mirror, "_buffer", lambda self: torch.empty(self.array.shape, dtype=self.copy.dtype))
    array = np.zeros(3)
    mirrored = mirror.Mirror(array, torch.device("cpu"))
    mirrored._pinned = True
    for value in (1.0, 2.0, 3.0):
        array[0] = value
        assert mirrored.send()
        assert mirrored.copy[0] == value
    assert not mirrored.send()
    assert len(mirrored._ring) == 3
    assert [float(buffer[0]) for buffer, _ in mirrored._ring] == [1.0, 2.0, 3.0]
    mirrored._ring[1][1].over = True
    array[0] = 4.0
    assert mirrored.send()
    assert [float(buffer[0]) for buffer, _ in mirrored._ring] == [1.0, 4.0, 3.0]


def test_what_a_graph_sends_is_its_own(monkeypatch):
    """A captured copy reads its buffer again at every replay, and the host must not believe what it sent since."""
    module = type("Module", (), {"Event": Events, "current_stream": staticmethod(lambda device: None)})
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    monkeypatch.setattr(mirror.Mirror, "_buffer", lambda self: torch.empty(self.array.shape, dtype=self.copy.dtype))
    capturing = [False]
    monkeypatch.setattr(mirror, "is_capturing", lambda device: capturing[0])
    array = np.ones(2)
    mirrored = mirror.Mirror(array, torch.device("cpu"), may_be_captured=True)
    mirrored._pinned = mirrored._may_be_captured = True
    mirrored._reserve = mirrored._buffer()
    assert mirrored.send()
    capturing[0] = True
    assert mirrored.send()
    captured = mirrored._captured[0]
    capturing[0] = False
    array[0] = 7.0
    assert mirrored.send()
    assert captured.tolist() == [1.0, 1.0]
    mirrored.copy.copy_(captured)
    assert mirrored.send()
    assert mirrored.copy.tolist() == [7.0, 1.0]
