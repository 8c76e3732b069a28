"""Gradient release: the numbers of ordinary training, bit for bit, with gradients freed as they arrive."""

import pytest
import torch
from releasing import assert_same, everything, loss_of, make_model, train

import onepass
from onepass import decay, schedules

TRANSFORMS = {
    "clip_value": lambda: onepass.clip_value(0.05),
    "clip_adaptive": lambda: onepass.clip_adaptive(clipping=0.05),
    "centralize": onepass.centralize,
    "cautious": onepass.cautious,
    "cautious_mask": onepass.cautious_mask,
    "lookahead": lambda: onepass.lookahead(k=3),
    "average": lambda: onepass.average(0.9),
}


def compare(make, dtype=torch.float32, scheduler=None, **more):
    """Train alike with and without release; the released model and optimizer."""
    results = []
    for release in (False, True):
        model = make_model(dtype)
        opt = make(model)
        if release:
            onepass.release_gradients(model, opt, accumulate=more.get("accumulate", 1))
        before = [p.detach().clone() for p in model.parameters()]
        train(model, opt, scheduler=scheduler and scheduler(opt), **more)
        assert not torch.equal(before[0], next(model.parameters()))
        results.append(everything(model, opt))
    assert all(p.grad is None for p in model.parameters())
    assert_same(*results)
    return model, opt


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_every_optimizer_walks_as_without_release(name, backend):
    compare(lambda model: onepass.create(name, model.parameters(), weight_decay=0.1, backend=backend))


@pytest.mark.parametrize("form", decay.FORMS.values())
@pytest.mark.parametrize("name", ["sgd", "adamw", "ranger"])
def test_every_form_of_decay(name, form):
    compare(lambda model: onepass.create(name, model.parameters(), weight_decay=form(0.1)))


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_transform_that_does_not_span_the_model(name, transform):
    compare(lambda model: onepass.create(name, model.parameters(), transforms=[TRANSFORMS[transform]()]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64])
def test_every_type(dtype):
    if dtype.is_complex:
        results = []
        for release in (False, True):
            torch.manual_seed(0)
            model = torch.nn.Linear(3, 2, dtype=dtype)
            opt = onepass.AdamW(model.parameters(), lr=0.01)
            if release:
                onepass.release_gradients(model, opt)
            for _ in range(5):
                model(torch.ones(1, 3, dtype=dtype)).abs().sum().backward()
                opt.step()
                opt.zero_grad()
            results.append(everything(model, opt))
        assert_same(*results)
    else:
        compare(lambda model: onepass.AdamW(model.parameters(), lr=0.01), dtype=dtype)


def test_parameter_groups_keep_their_hyperparameters():
    def grouped(model):
        groups = [{"params": model["first"].parameters(), "lr": 0.1}]
        rest = [p for name, p in model.named_parameters() if not name.startswith("first")]
        return onepass.AdamW([*groups, {"params": rest, "weight_decay": 0.3}], lr=0.01)

    compare(grouped)


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.7),
        lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=12),
        lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 1 / (t + 1)),
    ],
)
def test_torchs_schedulers_see_ordinary_steps(scheduler):
    compare(lambda model: onepass.AdamW(model.parameters(), lr=0.05), scheduler=scheduler)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_schedules_advance_once_an_iteration(accumulate):
    def make(model):
        rate = schedules.linear(0.1, 0.0, steps=9)
        return onepass.AdamW(model.parameters(), lr=rate, weight_decay=schedules.cosine(0.5, 0.1, steps=9))

    _, opt = compare(make, accumulate=accumulate)
    assert opt.param_groups[0]["schedule_step"] == 9


@pytest.mark.parametrize("accumulate", [2, 3])
def test_gradients_are_kept_between_accumulated_arrivals(accumulate):
    compare(lambda model: onepass.NAdam(model.parameters(), lr=0.01), accumulate=accumulate)


def test_parameters_step_in_backward_and_their_gradients_are_never_all_there():
    model = make_model()
    opt = onepass.SGD(model.parameters(), lr=0.1)
    onepass.release_gradients(model, opt)
    alive = []
    for p in model.parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(
                lambda _: alive.append(sum(p.grad is not None for p in model.parameters()))
            )
    before = [p.detach().clone() for p in model.parameters()]
    loss_of(model, 0).backward()
    assert alive == [0] * len(alive)
    assert len(alive) > 5
    changed = [not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)]
    assert sum(changed) == len(alive)
    stepped = [p.detach().clone() for p in model.parameters()]
    opt.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), stepped, strict=True))


def test_a_window_cut_short_steps_at_the_users_call():
    results = []
    for release in (False, True):
        model = make_model()
        opt = onepass.AdamW(model.parameters(), lr=0.01)
        if release:
            onepass.release_gradients(model, opt, accumulate=3)
        for t, arrivals in enumerate((3, 1, 3, 2)):
            for i in range(arrivals):
                loss_of(model, t + 100 * i).backward()
            opt.step()
            model.zero_grad()
        results.append(everything(model, opt))
    assert_same(*results)


def test_zero_grad_drops_what_was_accumulated_and_its_count():
    results = []
    for release in (False, True):
        model = make_model()
        opt = onepass.AdamW(model.parameters(), lr=0.01)
        if release:
            onepass.release_gradients(model, opt, accumulate=2)
        loss_of(model, 50).backward()
        train(model, opt, accumulate=2)
        results.append(everything(model, opt))
    assert_same(*results)


def test_nothing_is_planned_twice(monkeypatch):
    from onepass.backends.select import Runner

    made, every = [], Runner.__init__
    monkeypatch.setattr(Runner, "__init__", lambda self, *given: made.append(self) or every(self, *given))
    model = make_model()
    opt = onepass.AdamW(model.parameters())
    onepass.release_gradients(model, opt)
    train(model, opt, range(2))
    first = len(made)
    tensors = {key: id(value) for p in opt.state for key, value in opt.state[p].items()}
    train(model, opt, range(2, 6))
    assert len(made) == first <= len(opt.state)
    assert {key: id(value) for p in opt.state for key, value in opt.state[p].items()} == tensors


def test_sparse_gradients_step_row_by_row():
    results = []
    for release in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Embedding(10, 3, sparse=True)
        opt = onepass.AdamW(model.parameters(), lr=0.1)
        if release:
            onepass.release_gradients(model, opt)
        for t in range(4):
            model(torch.tensor([t, t + 1])).square().sum().backward()
            opt.step()
            opt.zero_grad()
        results.append(everything(model, opt))
    assert_same(*results)


def test_gradients_of_another_layout_step_as_ever():
    results = []
    for release in (False, True):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(4, 3).t())
        model = torch.nn.ParameterList([p])
        opt = onepass.AdamW(model.parameters(), lr=0.1)
        if release:
            onepass.release_gradients(model, opt)
        for t in range(4):
            (p.sum(0, keepdim=True) * (t + 1)).square().sum().backward()
            opt.step()
            opt.zero_grad()
        results.append(everything(model, opt))
    assert_same(*results)
