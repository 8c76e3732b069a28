"""accelerate: prepare, accumulate, clip, save_state and load_state."""

import pytest
import torch
from helpers import relative_error

import onepass

accelerate = pytest.importorskip("accelerate")

STEPS = 24


@pytest.fixture(autouse=True)
def fresh_state():
    """accelerate keeps its configuration in the process."""
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def prepared(cls=onepass.AdamW, **more):
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2, **more)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    opt = cls(model.parameters(), lr=3e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=STEPS)
    return accelerator, *accelerator.prepare(model, opt, schedule)


def train(accelerator, model, opt, schedule, steps):
    """Each step is made of two micro-batches."""
    losses = []
    for t in range(2 * steps.start, 2 * steps.stop):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(t))
        with accelerator.accumulate(model):
            loss = (model(x) - x.sum(1, keepdim=True).sin()).square().mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.5)
            opt.step()
            schedule.step()
            opt.zero_grad()
            losses.append(loss.item())
    return losses


def values(model):
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("cls", [onepass.AdamW, onepass.Ranger])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, cls, precision):
    accelerator, model, opt, schedule = prepared(cls, mixed_precision=precision)
    train(accelerator, model, opt, schedule, range(STEPS // 2))
    accelerator.save_state(tmp_path)
    losses = train(accelerator, model, opt, schedule, range(STEPS // 2, STEPS))
    whole, counts = values(model), {float(state["step"]) for state in opt.state.values()}
    assert counts == {STEPS}

    accelerator, model, opt, schedule = prepared(cls, mixed_precision=precision)
    accelerator.load_state(tmp_path)
    assert train(accelerator, model, opt, schedule, range(STEPS // 2, STEPS)) == losses
    assert all(torch.equal(p, q) for p, q in zip(values(model), whole, strict=True))


def test_a_state_can_be_loaded_over_a_run_that_went_on(tmp_path):
    run = prepared()
    train(*run, range(STEPS // 2))
    run[0].save_state(tmp_path)
    losses = train(*run, range(STEPS // 2, STEPS))
    whole = values(run[1])
    run[0].load_state(tmp_path)
    assert train(*run, range(STEPS // 2, STEPS)) == losses
    assert all(torch.equal(p, q) for p, q in zip(values(run[1]), whole, strict=True))


def test_it_trains_as_torchs_optimizer_does():
    ours, theirs = prepared(), prepared(torch.optim.AdamW)
    assert train(*ours, range(STEPS)) == pytest.approx(train(*theirs, range(STEPS)), rel=1e-4)
    assert relative_error(values(ours[1]), values(theirs[1])) < 1e-3
