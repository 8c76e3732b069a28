"""The laws: every optimizer here keeps them, torch's keep them but for what is known, and each law can be broken."""

import pytest
import torch
from lawbreakers import LAWBREAKERS, Descent
from lawbreakers.stepping import CountsTwice
from lawbreakers.tensors import StopsAtNothing

import onepass
from onepass import clip_value, ema, lookahead, rule, sign
from onepass.optim import get_class
from onepass.testing import BEYOND_TORCH, LAWS, LawBroken, check_optimizer


@rule
def signum(g, m, *, momentum=0.9):
    """Step by the sign of the averaged gradient."""
    m = ema(m, g, momentum)
    return sign(m), m


Signum = onepass.optimizer(signum)


def broken(cls, **arguments):
    """The names of the laws that a class breaks."""
    try:
        check_optimizer(cls, **arguments)
    except LawBroken as error:
        return set(error.laws)
    return set()


@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_our_optimizers_keep_every_law(name):
    check_optimizer(get_class(name))


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (Signum, {}),
        (onepass.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (onepass.RMSprop, {"momentum": 0.5, "centered": True}),
        (onepass.AdamW, {"amsgrad": True, "transforms": [clip_value(1.0), lookahead(k=2), onepass.average(0.9)]}),
        (onepass.Adam, {"backend": "reference", "weight_decay": onepass.decay.decoupled(0.1)}),
        (onepass.Adam, {"lr": torch.tensor(0.01)}),
    ],
)
def test_rules_of_ones_own_flags_and_transforms_keep_every_law(cls, arguments):
    check_optimizer(cls, **arguments)


def test_reductions_over_the_model_spread_nan_by_nature():
    stack = [onepass.clip_norm(1.0), onepass.cautious()]
    assert broken(onepass.AdamW, transforms=stack) == {"nan_stays_in_its_element"}


# Torch loads every state but the step count in the parameter's type; NAdam's product of momenta is float32.
CAST = {"checkpoints_continue_bit_for_bit"}
# With Nesterov's momentum and foreach it adds the buffer to the gradients themselves, which cannot be when these are
# expanded.
WRITTEN = {"gradients_are_left_alone", "layouts_do_not_matter"}
# The fused kernel reads gradients by the parameter's strides, and tells autograd nothing.
FUSED = {"layouts_do_not_matter", "autograd_notices_a_step"}


@pytest.mark.parametrize(
    ("name", "arguments", "known"),
    [
        ("SGD", {"foreach": False}, set()),
        ("SGD", {"momentum": 0.9, "nesterov": True, "foreach": True}, WRITTEN),
        ("Adagrad", {"foreach": False}, set()),
        ("Adadelta", {"foreach": False}, set()),
        ("RMSprop", {"foreach": False}, set()),
        ("Adam", {"foreach": False}, set()),
        ("Adam", {"fused": True}, FUSED),
        ("AdamW", {"foreach": False}, set()),
        ("AdamW", {"foreach": True}, set()),
        ("Adamax", {"foreach": False}, set()),
        ("NAdam", {"foreach": False}, CAST),
        ("RAdam", {"foreach": False}, set()),
    ],
)
def test_the_laws_are_fair_to_torch(name, arguments, known):
    stateless = name == "SGD" and "momentum" not in arguments
    beyond = set(BEYOND_TORCH) - {"loading_copies"} if stateless else set(BEYOND_TORCH)
    assert broken(getattr(torch.optim, name), **arguments) == beyond | known


def test_the_class_that_the_lawbreakers_derive_from_keeps_every_law():
    check_optimizer(Descent)


@pytest.mark.parametrize("cls", LAWBREAKERS, ids=lambda cls: cls.__name__)
def test_a_lawbreaker_is_caught_by_the_laws_it_breaks_and_by_no_other(cls):
    assert broken(cls) == LAWBREAKERS[cls]


def test_every_law_can_be_broken():
    assert set.union(*LAWBREAKERS.values()) == set(LAWS)


def test_what_is_said_of_a_broken_law():
    with pytest.raises(LawBroken) as caught:
        check_optimizer(CountsTwice, lr=0.5)
    assert caught.value.laws == ("steps_are_counted_per_parameter",)
    assert isinstance(caught.value, AssertionError)
    assert str(caught.value) == (
        "CountsTwice breaks 'steps_are_counted_per_parameter'. Where the state has a ``step``, it counts the steps "
        "that this parameter took part in. Seen: after 3 steps and 1 step the counts are [6.0, 2.0]"
    )


def test_an_error_in_a_step_is_told_with_its_type():
    with pytest.raises(LawBroken, match="Seen: RuntimeError: no elements"):
        LAWS["every_size_is_legal"](StopsAtNothing)


def test_laws_can_be_skipped_and_put_alone():
    check_optimizer(CountsTwice, skip=["steps_are_counted_per_parameter"])
    LAWS["gradients_are_left_alone"](CountsTwice, lr=0.5)
    with pytest.raises(ValueError, match="skip='gradients_left_alone' is no law: did you mean 'gradients_are_left_al"):
        check_optimizer(CountsTwice, skip=["gradients_left_alone"])


def test_laws_state_themselves_in_one_line():
    for name, law in LAWS.items():
        assert law.__doc__.endswith("."), name
        assert "\n" not in law.__doc__, name


def test_laws_leave_random_numbers_and_grad_mode_alone():
    state = torch.get_rng_state()
    with torch.no_grad():
        check_optimizer(Descent)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
