"""What a comparison plans to run, and what it refuses to."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny_task

import onepass
from onepass.study.compare import make_plan
from onepass.study.errors import StudyError
from onepass.study.plan import DEFAULT_GRID, DEFAULT_OPTIMIZERS, parse_candidates, parse_grid, seed_ranges


def plan_with(**changes):
    options = {"optimizers": "adam,sgd:momentum=0.9", "lr_grid": "1e-2,1e-3", "tuning_seeds": 2, "seeds": 3}
    return make_plan(tiny_task(), **{**options, **changes})


def test_every_candidate_gets_the_same_trials():
    plan = plan_with()
    assert plan.grid == (1e-3, 1e-2)
    for candidate in plan.candidates:
        tried = [(trial.lr, trial.seed) for trial in plan.tuning if trial.candidate == candidate]
        assert sorted(tried) == [(lr, seed) for lr in plan.grid for seed in plan.tuning_seeds]
    finals = plan.finals({"Adam": 1e-3, "SGD momentum=0.9": 1e-2})
    assert len(plan.tuning) + len(finals) == plan.total == 14
    assert {trial.seed for trial in finals} == {0, 1, 2}


def test_tuning_and_final_seeds_share_none():
    tuning, final = seed_ranges(5, 1000, 7)
    assert not set(tuning) & set(final)
    assert final[0] == 7


def test_settings_differ_in_candidate_rate_and_seed_alone():
    plan = plan_with(weight_decay=0.1, schedule="onecycle", warmup=0.2, epochs=3)
    settings = plan.settings(plan.tuning[-1])
    assert (settings.optimizer, settings.options, settings.lr) == ("sgd", (("momentum", 0.9),), 1e-2)
    assert (settings.weight_decay, settings.schedule, settings.warmup, settings.epochs) == (0.1, "onecycle", 0.2, 3)


def test_the_default_candidates_and_grid_are_valid():
    candidates = parse_candidates(DEFAULT_OPTIMIZERS, tiny_task(), 0.0)
    assert [candidate.label for candidate in candidates][:2] == ["SGD momentum=0.9", "Adagrad"]
    assert len(candidates) == 10
    assert len(parse_grid(DEFAULT_GRID)) == 9


def test_all_means_every_optimizer():
    candidates = parse_candidates("all", tiny_task(), 0.0)
    assert [candidate.optimizer for candidate in candidates] == onepass.list_optimizers()


def test_options_may_be_tuples_and_several():
    adam, _ = parse_candidates("Adam:betas=(0.8, 0.99);amsgrad=True, sgd", tiny_task(), 0.0)
    assert adam.optimizer == "adam"
    assert dict(adam.options) == {"betas": (0.8, 0.99), "amsgrad": True}
    assert adam.label == "Adam amsgrad=True betas=(0.8, 0.99)"


def test_the_line_to_paste_makes_the_candidate():
    candidate, _ = parse_candidates("sgd:momentum=0.9;nesterov=True,adam", tiny_task(), 0.0)
    names = {"onepass": onepass, "model": torch.nn.Linear(2, 1)}
    exec(candidate.code(0.03, 0.1), names)
    made = names["opt"]
    assert type(made) is onepass.SGD
    assert {name: made.defaults[name] for name in ("lr", "momentum", "nesterov", "weight_decay")} == {
        "lr": 0.03,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.1,
    }


def test_what_a_task_prescribes_for_an_optimizer_is_part_of_the_candidate():
    task = replace(tiny_task(), options={"adam": {"eps": 1e-6}})
    adam, other = parse_candidates("adam,adam:eps=1e-3", task, 0.0)
    assert (adam.options, other.options) == ((("eps", 1e-6),), (("eps", 1e-3),))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"optimizers": "adma,sgd"}, ["adma", "adam"]),
        ({"optimizers": "adam"}, ["adam", "two"]),
        ({"optimizers": ""}, ["two"]),
        ({"optimizers": "adam,ADAM"}, ["Adam", "twice"]),
        ({"optimizers": "adam,sgd:momentum"}, ["momentum", "NAME=VALUE"]),
        ({"optimizers": "adam,sgd:momentum=high"}, ["high", "Python value"]),
        ({"optimizers": "adam,sgd:momentum=-1"}, ["-1"]),
        ({"optimizers": "adam,sgd:momentun=0.9"}, ["momentun", "momentum"]),
        ({"optimizers": "adam,sgd:lr=0.9"}, ["lr", "--lr-grid"]),
        ({"optimizers": "adam,sgd:weight_decay=0.9"}, ["weight_decay", "--weight-decay"]),
        ({"lr_grid": ""}, ["--lr-grid", "empty"]),
        ({"lr_grid": "1e-3,zero"}, ["zero"]),
        ({"lr_grid": "1e-3,0"}, ["0", "positive"]),
        ({"lr_grid": "-1e-3"}, ["-1e-3", "positive"]),
        ({"lr_grid": "inf"}, ["inf", "finite"]),
        ({"tuning_seeds": 0}, ["--tuning-seeds", "0"]),
        ({"seeds": 1}, ["--seeds", "1"]),
        ({"first_seed": -1}, ["--seed", "-1"]),
        ({"weight_decay": -0.1}, ["-0.1"]),
        ({"schedule": "cosin"}, ["cosin", "cosine"]),
        ({"warmup": 1.5}, ["1.5"]),
        ({"epochs": 0}, ["0"]),
        ({"batch_size": 0}, ["0"]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_value(changes, names):
    with pytest.raises(StudyError) as caught:
        plan_with(**changes)
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message
