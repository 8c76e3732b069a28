"""The classes that frameworks' fronts are made from are the torch classes: options, defaults and what flags choose."""

import inspect

import golden
import numpy as np
import pytest
import torch

import onepass
from onepass import decay, transforms
from onepass.functional.core import advance, initial_states
from onepass.functional.families import FAMILIES, family_of
from onepass.functional.numpy import library
from onepass.functional.recipe import recipe
from onepass.functional.serialised import applied, as_config
from onepass.optim.registry import CLASSES

# Torch's constructors have these besides.
TORCHS_OWN = {"params", "foreach", "differentiable", "fused", "capturable", "maximize", "decoupled_weight_decay"}
OURS = {"transforms", "skip_nonfinite", "backend"}
NUMPY = library("numpy")


def test_there_is_one_for_every_class():
    assert {title.lower() for title in FAMILIES} == set(CLASSES)


@pytest.mark.parametrize("title", FAMILIES)
def test_options_and_defaults_are_the_torch_classs(title):
    family, cls = FAMILIES[title], getattr(onepass, title)
    theirs = {key: p.default for key, p in inspect.signature(cls).parameters.items() if key not in TORCHS_OWN | OURS}
    assert {"lr": family.lr, "weight_decay": family.weight_decay, **family.options} == theirs


FLAGS = {
    "SGD": [{"momentum": 0.9, "dampening": 0.1}, {"momentum": 0.9, "nesterov": True}],
    "RMSprop": [{"centered": True}, {"momentum": 0.5}, {"momentum": 0.5, "centered": True, "alpha": 0.9}],
    "Adam": [{"amsgrad": True}],
    "AdamW": [{"amsgrad": True, "betas": (0.8, 0.9)}],
    "Ranger": [{"k": 2, "alpha": 0.3}],
}


@pytest.mark.parametrize(
    ("title", "options"), [(title, options) for title in FAMILIES for options in [{}, *FLAGS.get(title, [])]], ids=str
)
def test_flags_choose_what_they_choose_in_torch(title, options):
    random = np.random.default_rng(0)
    start = [random.standard_normal(shape) for shape in ((4, 3), (3,))]
    theirs = [torch.tensor(p, requires_grad=True) for p in start]
    opt = getattr(onepass, title)(theirs, lr=0.1, weight_decay=0.1, backend="reference", **options)
    preset, hyperparameters = FAMILIES[title].recipe_of(options)
    made = recipe(preset, lr=0.1, weight_decay=0.1, **hyperparameters)
    params, states = start, initial_states(made.program, made.host_values, list(zip("ab", start, strict=True)), NUMPY)
    for t in range(1, 9):
        grads = [random.standard_normal(p.shape) for p in start]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        opt.step()
        params, states, _ = advance(made.program, made.host_values, t, params, grads, states, NUMPY)
    assert golden.error(params, [p.detach().numpy() for p in theirs]) < golden.bound("float64")


def test_a_rule_of_ones_own_has_a_class():
    @onepass.rule(lr=0.5)
    def half(g, *, part=0.5):
        """Half a step.

        At least by default.
        """
        return part * g

    family = family_of(half, "Half", "l2")
    assert (family.lr, family.options, family.says) == (0.5, {"part": 0.5}, "Half a step.")
    assert family.preset.decay_form == "l2"


@pytest.mark.parametrize(
    "given",
    [transforms.clip_norm(2.0), transforms.average(0.9), decay.independent(0.1, lr_max=2.0), decay.cautious(0.1)],
)
def test_transforms_come_back_from_plain_data(given):
    assert applied(as_config(given), lambda name: None) == given


def test_a_transform_of_ones_own_is_looked_for_by_its_name():
    @onepass.transform
    def halve(g, *, times=1.0):
        return g / (2 * times)

    assert applied(as_config(halve(times=3.0)), {"halve": halve}.get) == halve(times=3.0)
    with pytest.raises(ValueError, match="unknown transform 'halve': pass custom_objects="):
        applied(as_config(halve()), lambda name: None)
