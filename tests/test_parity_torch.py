"""Every optimizer torch has, with every flag, against torch: float64, random gradients, more than a hundred steps."""

import inspect
import itertools

import pytest
import torch
from helpers import relative_error, walk

import onepass

TOLERANCE = 1e-10


def product(**choices):
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


COMMON = {"maximize": [False, True], "weight_decay": [0.0, 0.1]}
CASES = {
    "SGD": [
        options
        for options in product(momentum=[0.0, 0.9], dampening=[0.0, 0.3], nesterov=[False, True], **COMMON)
        if not options["nesterov"] or (options["momentum"] and not options["dampening"])
    ],
    "Adagrad": product(lr_decay=[0.0, 0.01], initial_accumulator_value=[0.0, 0.5], **COMMON),
    "Adadelta": product(rho=[0.9, 0.5], **COMMON),
    "RMSprop": product(momentum=[0.0, 0.9], centered=[False, True], **COMMON),
    "Adam": product(amsgrad=[False, True], decoupled_weight_decay=[False, True], **COMMON),
    "AdamW": product(amsgrad=[False, True], **COMMON),
    "Adamax": product(betas=[(0.9, 0.999), (0.8, 0.95)], **COMMON),
    "NAdam": product(decoupled_weight_decay=[False, True], momentum_decay=[4e-3, 0.1], **COMMON),
    "RAdam": product(decoupled_weight_decay=[False, True], betas=[(0.9, 0.999), (0.9, 0.99)], **COMMON),
}


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize(
    ("name", "options"), [pytest.param(n, o, id=f"{n}-{i}") for n, many in CASES.items() for i, o in enumerate(many)]
)
def test_equals_torch(name, options):
    error = walk(
        lambda params: getattr(onepass, name)(params, **options),
        lambda params: getattr(torch.optim, name)(params, foreach=False, **options),
    )
    assert error < TOLERANCE, f"{name}({options}): {error:.3g}"


def test_centered_rmsprop_keeps_half_the_digits_where_its_variance_cancels():
    # Gradients that hardly change leave v - g_bar^2 as the difference of two nearly equal numbers. A variance of 1e-8
    # that is computed from numbers near 1 is good to 8 digits, in torch as here: 1e-10 cannot be asked for.
    torch.manual_seed(0)
    start, noise = torch.randn(50, dtype=torch.float64), 1e-4 * torch.randn(400, 50, dtype=torch.float64)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = onepass.RMSprop([ours], alpha=0.9, centered=True)
    other = torch.optim.RMSprop([theirs], alpha=0.9, centered=True, foreach=False)
    for row in noise:
        ours.grad, theirs.grad = 1 + row, 1 + row
        mine.step()
        other.step()
    error = relative_error([ours.detach()], [theirs.detach()])
    assert TOLERANCE < error < 1e-7, error


@pytest.mark.parametrize("name", CASES)
def test_the_defaults_are_those_of_torch(name):
    ours = getattr(onepass, name)([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert {key: ours[key] for key in theirs if key != "params"} == {k: v for k, v in theirs.items() if k != "params"}


@pytest.mark.parametrize("name", CASES)
def test_the_positional_arguments_are_those_of_torch(name):
    def positional(cls):
        parameters = inspect.signature(cls).parameters.values()
        return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    def keywords(cls):
        parameters = inspect.signature(cls).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    ours, theirs = getattr(onepass, name), getattr(torch.optim, name)
    assert positional(ours) == positional(theirs)
    assert keywords(ours) == {**keywords(theirs), "transforms": (), "skip_nonfinite": False, "backend": None}


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("name", CASES)
def test_a_scheduler_moves_ours_as_it_moves_torch(name):
    torch_class = getattr(torch.optim, name)
    schedulers = {}

    def change(optimizer, t):
        if t == 1:
            schedulers[optimizer] = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5)
        elif t > 1:
            schedulers[optimizer].step()
        if t == 50:
            optimizer.param_groups[0]["weight_decay"] = 0.05

    assert walk(getattr(onepass, name), lambda p: torch_class(p, foreach=False), change=change) < TOLERANCE


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_float32_stays_within_rounding_of_torch(name):
    error = walk(getattr(onepass, name), getattr(torch.optim, name), steps=50, dtype=torch.float32)
    assert error < 2e-5


@pytest.mark.parametrize("name", CASES)
def test_complex_parameters_are_pairs_of_reals(name):
    torch.manual_seed(0)
    start = torch.randn(4, 3, dtype=torch.complex128)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = getattr(onepass, name)([ours])
    other = getattr(torch.optim, name)([theirs], foreach=False)
    for _ in range(20):
        ours.grad = torch.randn(4, 3, dtype=torch.complex128)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    # Scalar states are float32 in torch here, which is what 1e-6 allows for.
    assert (ours - theirs).abs().max() < (1e-6 if name == "NAdam" else TOLERANCE)
