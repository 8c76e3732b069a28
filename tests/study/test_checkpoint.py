"""Checkpoints: what they bring back, bit for bit, and what is refused."""

import dataclasses
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TIMES, tiny_task, without_times
from torch import nn

from onepass.study import checkpoint as checkpoints
from onepass.study.errors import StudyError
from onepass.study.record import Epoch, Outcome, Settings, Then
from onepass.study.training import fit

# Checkpoints


def assert_same(one, other, where=""):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one.keys() - TIMES:
            assert_same(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


STOPPED_WHERE = [
    ("arrays", Settings("adam", epochs=4)),
    ("arrays", Settings("ranger", epochs=4, schedule="onecycle")),
    ("arrays", Settings("sgd", epochs=4, schedule="onecycle", lr=0.1)),
    ("dataset", Settings("nadam", epochs=4, schedule="cosine", warmup=0.3)),
    ("loader", Settings("yogi", epochs=4, schedule="step")),
    ("loader of its own mind", Settings("radam", epochs=4)),
    ("arrays", Settings("adam", epochs=6, seed=5, lr=0.5, schedule="cosine", then=Then("sgd", lr=0.01, patience=1))),
]


@pytest.mark.parametrize("stop", ["after an epoch", "within an epoch"])
@pytest.mark.parametrize("done", [1, 2, 3])
@pytest.mark.parametrize(("kind", "settings"), STOPPED_WHERE)
def test_resuming_is_bit_for_bit(tmp_path, kind, settings, done, stop):
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    uninterrupted = fit(tiny_task(kind), settings, checkpoint=whole)
    if settings.then:
        names = [epoch.optimizer for epoch in uninterrupted.history]
        assert names == ["adam"] * 2 + ["sgd"] * 4, "the change comes before, at and after where the run is stopped"

    def stop_at_epoch(epoch):
        if stop == "after an epoch" and epoch.epoch == done:
            raise KeyboardInterrupt

    def stop_at_step(step, total, loss):
        if stop == "within an epoch" and step == done * 8 + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_task(kind), settings, checkpoint=broken, on_epoch=stop_at_epoch, on_step=stop_at_step)
    # Whatever happens in between must not matter.
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    resumed = fit(tiny_task(kind), settings, checkpoint=broken, resume=True)
    assert without_times(resumed) == without_times(uninterrupted)
    assert_same(checkpoints.read(whole), checkpoints.read(broken))


def test_every_random_number_generator_is_brought_back():
    device = torch.device("cpu")
    checkpoints.seed_everything(5)
    state = checkpoints.random_state(device)

    def draw():
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002

    drawn = draw()
    assert draw() != drawn
    checkpoints.restore_random_state(state, device)
    assert draw() == drawn


def test_a_constant_schedule_can_be_prolonged(tmp_path):
    path = tmp_path / "c.pt"
    settings = Settings("adam", epochs=2)
    fit(tiny_task(), settings, checkpoint=path)
    longer = dataclasses.replace(settings, epochs=4)
    resumed = fit(tiny_task(), longer, checkpoint=path, resume=True)
    assert without_times(resumed) == without_times(fit(tiny_task(), longer))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"lr": 0.1}, "trained with lr None, not 0.1"),
        ({"epochs": 3}, "trained with epochs 2, not 3; only a constant schedule can be prolonged"),
        ({"epochs": 1}, "trained with epochs 2, not 1"),
        ({"options": (("eps", 0.1),)}, "trained with options.eps None, not 0.1"),
        ({"seed": 1}, "trained with seed 0, not 1"),
    ],
)
def test_resuming_with_other_settings_names_the_difference(tmp_path, change, complaint):
    settings = Settings("adam", epochs=2, schedule="cosine")
    fit(tiny_task(), settings, checkpoint=tmp_path / "c.pt")
    with pytest.raises(StudyError, match=complaint):
        fit(tiny_task(), dataclasses.replace(settings, **change), checkpoint=tmp_path / "c.pt", resume=True)


def test_resuming_another_task_or_model_is_refused(tmp_path):
    settings = Settings("adam", epochs=1)
    path = tmp_path / "c.pt"
    fit(tiny_task(), settings, checkpoint=path)
    with pytest.raises(StudyError, match="is of the task 'tiny', not 'other'"):
        fit(tiny_task(name="other"), settings, checkpoint=path, resume=True)
    with pytest.raises(StudyError, match="does not fit the task's model"):
        fit(tiny_task(model=lambda: nn.Linear(2, 2)), settings, checkpoint=path, resume=True)


def test_a_checkpoint_that_is_none(tmp_path):
    settings = Settings("adam", epochs=1)
    path = tmp_path / "c.pt"
    with pytest.raises(StudyError, match=r"no checkpoint .* to resume from"):
        fit(tiny_task(), settings, checkpoint=path, resume=True)
    with pytest.raises(StudyError, match="nothing to resume from"):
        fit(tiny_task(), settings, resume=True)
    fit(tiny_task(), settings, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-300])
    for resume in (True, False):
        with pytest.raises(StudyError, match="is damaged, or no checkpoint of onepass"):
            fit(tiny_task(), settings, checkpoint=path, resume=resume)
    torch.save({"model": {}}, path)
    with pytest.raises(StudyError, match="is no checkpoint of this version"):
        fit(tiny_task(), settings, checkpoint=path)
    path.write_text("my thesis")
    with pytest.raises(StudyError, match="is damaged, or no checkpoint"):
        fit(tiny_task(), settings, checkpoint=path)
    assert path.read_text() == "my thesis"


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_reading_a_checkpoint_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoints.FORMAT, "model": Trap()}, "c.pt")
    with pytest.raises(StudyError, match="is damaged, or no checkpoint"):
        checkpoints.read(Path("c.pt"))
    assert not Path("sprung").exists()


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoints.write(path, {"number": 0})
    with path.open("rb") as old:
        checkpoints.write(path, {"number": 1})
        assert torch.load(old, weights_only=True)["number"] == 0, "a reader keeps the old file"

    def fail(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(StudyError, match=r"cannot write the checkpoint .*No space left on device"):
        checkpoints.write(path, {"number": 2})
    assert [each.name for each in tmp_path.iterdir()] == ["c.pt"]
    assert checkpoints.read(path)["number"] == 1


def test_an_unwritable_folder_is_found_before_training(tmp_path):
    (tmp_path / "file").touch()
    steps = []
    with pytest.raises(StudyError, match=r"cannot write a checkpoint to .*name another place with --checkpoint"):
        fit(
            tiny_task(),
            Settings("adam", epochs=1),
            checkpoint=tmp_path / "file" / "c.pt",
            on_step=lambda *step: steps.append(step),
        )
    assert steps == []


# Records


def test_records_go_to_json_and_back():
    settings = Settings(
        "adam",
        epochs=3,
        batch_size="full",
        options=(("betas", (0.8, 0.9)), ("eps", 1e-6)),
        then=Then("sgd", 0.1, options=(("momentum", 0.9),)),
    )
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    epoch = Epoch(1, 8, 0.5, 0.1, 2.0, 2.5, 0.5, 0.02, "adam")
    outcome = Outcome((epoch,), 1.0, 0.5, False, None, None, 8, 0.5, 0.1)
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json(), allow_nan=False))) == outcome
