"""The training loop: what a seed decides, what the numbers mean, divergence, the second optimizer."""

import dataclasses
import json
import math

import pytest
import torch
from tiny import examples, make_model, tiny_task, without_times
from torch import nn
from torch.utils.data import DataLoader

import onepass
from onepass.study import checkpoint as checkpoints
from onepass.study.errors import StudyError
from onepass.study.optimizers import make_optimizer, read_options
from onepass.study.record import Outcome, Settings, Then
from onepass.study.task import Arrays
from onepass.study.training import fit

# What a seed decides


@pytest.mark.parametrize("kind", ["arrays", "tensors", "dataset", "loader"])
def test_the_same_settings_give_the_same_numbers(kind):
    settings = Settings("adam", epochs=2, seed=3)
    outcomes = [without_times(fit(tiny_task(kind), settings)) for _ in range(2)]
    other = without_times(fit(tiny_task(kind), dataclasses.replace(settings, seed=4)))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] != other


@pytest.mark.parametrize("kind", ["arrays", "loader"])
def test_runs_that_differ_in_the_optimizer_are_paired(kind):
    def seen_by(optimizer):
        seen = []

        def loss(outputs, targets):
            seen.append(targets.tolist())
            return nn.functional.cross_entropy(outputs, targets)

        def model():
            made = make_model()
            seen.append([parameter.tolist() for parameter in made.parameters()])
            return made

        fit(tiny_task(kind, loss=loss, model=model), Settings(optimizer, epochs=2), evaluate_test=False)
        return seen

    assert seen_by("adam") == seen_by("sgd")


def test_each_epoch_has_an_order_of_its_own_and_every_example_once():
    batches = []
    task = tiny_task(train=Arrays(torch.arange(20.0).reshape(10, 2), torch.arange(10)))

    def loss(outputs, targets):
        batches.append(targets)
        return outputs.sum() * 0

    fit(
        dataclasses.replace(task, loss=loss, validation=task.train),
        Settings("sgd", epochs=2, batch_size=4),
        evaluate_test=False,
    )
    sizes = [len(batch) for batch in batches]
    assert sizes == [4, 4, 2, 10, 4, 4, 2, 10], "three training batches and the validation data, twice"
    first, second = torch.cat(batches[:3]), torch.cat(batches[4:7])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(10))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(("size", "steps"), [(1, 60), (7, 9), ("full", 1), (1000, 1), (None, 8)])
def test_batch_size(size, steps):
    # One example is too little for the batch normalisation of the usual model.
    task = tiny_task(model=lambda: nn.Linear(2, 2))
    assert fit(task, Settings("sgd", epochs=1, batch_size=size)).steps == steps


def test_the_batches_of_a_loader_are_its_own():
    assert fit(tiny_task("loader"), Settings("sgd", epochs=1)).steps == 8
    with pytest.raises(StudyError, match="--batch-size 4: tiny gives a DataLoader, which makes its own batches"):
        fit(tiny_task("loader"), Settings("sgd", epochs=1, batch_size=4))


def test_losses_and_metrics_are_means_over_examples():
    outcome = fit(tiny_task(train=Arrays(*examples(300, 5)), validation=Arrays(*examples(300, 5))), Settings("sgd", 1))
    torch.manual_seed(0)
    model, (inputs, targets) = make_model(), examples(300, 5)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    optimizer = onepass.SGD(model.parameters())
    total = 0.0
    for rows in order.split(8):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    model.eval()
    outputs = model(inputs)
    (epoch,) = outcome.history
    assert epoch.train_loss == pytest.approx(total / 300, rel=1e-9)
    assert epoch.validation_loss == pytest.approx(nn.functional.cross_entropy(outputs, targets).item(), rel=1e-6)
    assert epoch.validation_metric == pytest.approx((outputs.argmax(1) == targets).double().mean().item(), rel=1e-6)
    assert (epoch.epoch, epoch.step, epoch.optimizer) == (1, 38, "sgd")
    assert 0 < epoch.optimizer_seconds < epoch.seconds


def test_a_steps_time_counts_its_dear_steps_and_not_the_compiling_of_kernels():
    outcome = fit(tiny_task(), Settings("adam", epochs=3), evaluate_test=False)
    # Seconds in the optimizer's step by the end of each epoch of 8 steps: the first compiles, a step takes 2 ms.
    spent = (1.0, 1.016, 1.032)
    history = tuple(
        dataclasses.replace(epoch, optimizer_seconds=seconds)
        for epoch, seconds in zip(outcome.history, spent, strict=True)
    )
    timed = dataclasses.replace(outcome, history=history, seconds=2.0)
    assert timed.step_seconds == pytest.approx(0.002)
    assert timed.step_share == pytest.approx(24 * 0.002 / 2)
    assert dataclasses.replace(timed, history=history[:1]).step_seconds == pytest.approx(1 / 8)
    assert dataclasses.replace(timed, history=(), optimizer_seconds=0.6).step_seconds == pytest.approx(0.6 / 24)


def test_threads_are_set_for_the_run_alone():
    seen = []

    def loss(outputs, targets):
        seen.append(torch.get_num_threads())
        return nn.functional.cross_entropy(outputs, targets)

    before = torch.get_num_threads()
    fit(tiny_task(loss=loss), Settings("sgd", epochs=1, threads=before + 1))
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_a_loaders_own_generator_decides_nothing_and_is_left_alone():
    own = torch.Generator().manual_seed(5)
    before = own.get_state()
    loader = DataLoader(Arrays(*examples(40, 0)), batch_size=8, shuffle=True, generator=own)
    task = tiny_task(train=loader, batch_size=None)
    outcomes = [without_times(fit(task, Settings("adam", epochs=2, seed=seed))) for seed in (1, 1, 2)]
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert torch.equal(own.get_state(), before)


def test_a_loader_lent_to_two_splits_keeps_them_apart():
    loader = DataLoader(Arrays(*examples(40, 0)), batch_size=8, shuffle=True)
    task = tiny_task(train=loader, validation=loader, batch_size=None)
    settings = Settings("adam", epochs=3)
    assert without_times(fit(task, settings)) == without_times(fit(task, settings))


def test_no_data_is_refused():
    nothing = Arrays(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    with pytest.raises(StudyError, match="the train data hold no batch"):
        fit(tiny_task(train=nothing), Settings("adam", epochs=1))


# Optimizers and their hyperparameters


def made(task, name, **given):
    return make_optimizer(task, name, [nn.Parameter(torch.zeros(2))], **given)


def test_the_tasks_own_values_are_for_its_own_optimizer():
    task = tiny_task(weight_decay=0.3, options={"Adam": {"eps": 1e-6}, "yogi": {"betas": (0.8, 0.9)}})
    own, yogi = made(task, "ADAM").defaults, made(task, "yogi").defaults
    assert (own["lr"], own["weight_decay"], own["eps"]) == (0.02, 0.3, 1e-6)
    assert (yogi["lr"], yogi["weight_decay"], yogi["betas"]) == (0.01, 0, (0.8, 0.9))
    told = made(task, "adam", lr=0.5, weight_decay=0.0, options=(("eps", 0.1),)).defaults
    assert (told["lr"], told["weight_decay"], told["eps"]) == (0.5, 0, 0.1)


def test_options_are_python_values():
    assert read_options(["eps=1e-6", "betas = (0.8, 0.9)", "amsgrad=True"]) == (
        ("amsgrad", True),
        ("betas", (0.8, 0.9)),
        ("eps", 1e-6),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (["eps"], "--set 'eps' is not NAME=VALUE"),
        (["eps=small"], "'small' is not a Python value"),
        (["eps=__import__('os')"], "is not a Python value"),
        (["lr=1"], "lr has an option of its own, --lr"),
        (["weight_decay=1"], "weight_decay has an option of its own, --weight-decay"),
        (["eps=1", "eps=2"], "--set eps is given twice"),
    ],
)
def test_bad_options(text, complaint):
    with pytest.raises(StudyError, match=complaint):
        read_options(text)


def test_bad_hyperparameters_name_the_nearest():
    with pytest.raises(StudyError, match="optimizer adam: Adam takes no 'bets'; did you mean 'betas'"):
        made(tiny_task(), "adam", options=(("bets", 1),))
    with pytest.raises(StudyError, match="unknown optimizer 'adma'"):
        made(tiny_task(), "adma")
    with pytest.raises(StudyError, match=r"optimizer adam: .*-1"):
        made(tiny_task(), "adam", lr=-1.0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"warmup": 1.0}, "warmup 1.0 is not a share"),
        ({"epochs": 0}, "epochs 0 is not a positive number"),
        ({"seed": -1}, "seed -1 is not in"),
        ({"batch_size": 0}, "batch size 0 is neither"),
        ({"device": "abacus"}, "device 'abacus' cannot be used here; usable: cpu"),
        ({"device": "meta"}, "device 'meta' cannot be used here"),
        ({"then": Then("sgd", patience=0)}, "patience 0 is not"),
        ({"then": Then("sgdd")}, "unknown optimizer 'sgdd'"),
        ({"then": Then("sgd", options=(("momentm", 1),))}, "did you mean 'momentum'"),
    ],
)
def test_bad_settings_are_refused_before_training(change, complaint, tmp_path):
    with pytest.raises(StudyError, match=complaint):
        fit(tiny_task(), Settings(**{"optimizer": "adam", "epochs": 1, **change}), checkpoint=tmp_path / "c.pt")
    assert not list(tmp_path.iterdir())


# Divergence


def test_a_diverging_run_is_an_outcome(tmp_path):
    def loss(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets) * (math.nan if len(losses) == 20 else 1)

    losses = []
    path = tmp_path / "c.pt"
    outcome = fit(
        tiny_task(loss=loss),
        Settings("adam", epochs=4, lr=0.5),
        on_step=lambda step, total, value: losses.append(value),
        checkpoint=path,
    )
    assert (outcome.diverged, outcome.diverged_at, outcome.diverged_lr, outcome.steps) == (True, 21, 0.5, 20)
    assert (outcome.test_loss, outcome.test_metric) == (None, None)
    assert [epoch.epoch for epoch in outcome.history] == [1, 2]
    assert len(checkpoints.read(path)["history"]) == 2, "the last good checkpoint stays"


def test_a_validation_loss_that_is_not_finite_is_divergence():
    broken = Arrays(torch.full((4, 2), math.nan), torch.zeros(4, dtype=torch.long))
    outcome = fit(tiny_task(validation=broken), Settings("adam", epochs=4))
    assert (outcome.diverged, outcome.diverged_at, len(outcome.history)) == (True, 8, 1)
    again = Outcome.from_json(json.loads(json.dumps(outcome.to_json(), allow_nan=False)))
    assert math.isnan(again.history[0].validation_loss)


# A second optimizer


def scripted(losses):
    """A task whose validation losses are as given, epoch by epoch, and the weights that each epoch left."""
    weights = []

    def compute(outputs, targets):
        return 0.0

    def loss(outputs, targets):
        if len(targets) == 20:
            weights.append(float(outputs[:, 0].sum()))
            return outputs.sum() * 0 + losses[len(weights) - 1]
        return nn.functional.cross_entropy(outputs, targets)

    task = tiny_task(loss=loss, model=lambda: nn.Linear(2, 2))
    return dataclasses.replace(task, metric=dataclasses.replace(task.metric, compute=compute)), weights


def test_the_second_optimizer_starts_from_the_best_weights():
    task, weights = scripted([3, 2, 2.5, 2.4, 1, 1, 1, 1])
    # Its steps are too small to see, so that the weights of its first epoch are those that it started from.
    settings = Settings("adam", epochs=8, then=Then("sgd", lr=1e-12, patience=2), schedule="cosine")
    outcome = fit(task, settings, evaluate_test=False)
    assert [epoch.optimizer for epoch in outcome.history] == ["adam"] * 4 + ["sgd"] * 4
    assert weights[4] == pytest.approx(weights[1], rel=1e-6)
    assert weights[4] != pytest.approx(weights[3], rel=1e-3)
    # The schedule starts anew and spans the four epochs left: half of it is after two.
    assert outcome.history[5].lr / 1e-12 == pytest.approx((1 + math.cos(math.pi * 15 / 32)) / 2)


def test_no_second_optimizer_while_the_first_improves():
    task, _ = scripted([4, 3, 2, 1])
    outcome = fit(task, Settings("adam", epochs=4, then=Then("sgd", patience=1)), evaluate_test=False)
    assert {epoch.optimizer for epoch in outcome.history} == {"adam"}
