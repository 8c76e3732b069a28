"""Construction: what is refused and how, what is taken as torch takes it, and what becomes of it in the groups."""

import io
import pydoc
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers import parameters

import onepass
from onepass import decay, schedules
from onepass.optim import get_class


def test_invalid_hyperparameters_raise_with_the_value():
    p = parameters()
    for make, message in [
        (lambda: onepass.Adam(p, lr=-1.0), r"Adam: lr must lie in \[0, inf\), and -1 does not"),
        (lambda: onepass.Adam(p, lr=float("nan")), "nan does not"),
        (lambda: onepass.Adam(p, betas=(0.9, 1.0)), r"betas\[1\] must lie in \[0, 1\), and 1 does not"),
        (lambda: onepass.Adam(p, betas=(0.9,)), r"betas takes 2 numbers, such as \(0.9, 0.999\), not \(0.9,\)"),
        (lambda: onepass.Adam(p, eps=-1e-8), "eps must lie in"),
        (lambda: onepass.AdamW(p, weight_decay=-0.1), "-0.1 does not"),
        (lambda: onepass.SGD(p, momentum=-0.5), "momentum must lie in"),
        (lambda: onepass.SGD(p, nesterov=True), "not momentum=0 and dampening=0"),
        (lambda: onepass.RMSprop(p, momentum=-0.5), "momentum must lie in"),
        (lambda: onepass.Adadelta(p, rho=1.5), r"rho must lie in \[0, 1\], and 1.5 does not"),
        (lambda: onepass.Adagrad(p, lr_decay=-1), "lr_decay"),
        (lambda: onepass.NAdam(p, momentum_decay=-1), "momentum_decay"),
        (lambda: onepass.Ranger(p, k=2.5), "k must lie in an integer"),
        (lambda: onepass.Ranger([{"params": p, "alpha": 2.0}]), "alpha must lie in"),
        (lambda: onepass.Adam([{"params": p, "lr": -3.0}]), "-3 does not"),
        (lambda: onepass.Adam(p, weight_decay=decay.independent(0.1), decoupled_weight_decay=True), "contradicts"),
        (lambda: onepass.Adam(p, weight_decay=onepass.clip_value(1.0)), "takes a number or one of"),
        (lambda: onepass.Adam(p, transforms=[decay.l2(0.1)]), "belongs in weight_decay="),
        (lambda: onepass.Adam(p, transforms=[onepass.cautious(), onepass.cautious()]), "given twice"),
        (lambda: onepass.Adam([]), "empty parameter list"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    for make, message in [
        (lambda: onepass.Adam(p, lr="1e-4"), "lr takes a number, not '1e-4'; write 0.0001 without the quotes"),
        (lambda: onepass.Adam(p, transforms=[onepass.lookahead]), r"call it: lookahead\(\)"),
        (lambda: onepass.Adam(p, transforms=["cautious"]), "not 'cautious'"),
        (lambda: onepass.Adam(p[0]), "iterable of Tensors"),
        (lambda: onepass.create("adam", p, momentun=0.9), "takes no 'momentun'"),
        (lambda: onepass.create("sgd", p, momentun=0.9), "did you mean 'momentum'"),
        (lambda: onepass.optimizer(lambda g: g), "made by @onepass.rule"),
    ]:
        with pytest.raises(TypeError, match=message):
            make()


def test_a_failed_constructor_leaves_the_callers_groups_alone():
    groups = [{"params": parameters(), "weight_decay": decay.l2(0.1)}, {"params": parameters(), "lr": -1.0}]
    kept = [dict(group) for group in groups]
    with pytest.raises(ValueError, match="-1 does not"):
        onepass.Adam(groups)
    assert all(
        group.keys() == old.keys() and all(group[key] is old[key] for key in old)
        for group, old in zip(groups, kept, strict=True)
    )


def test_unknown_names_bring_the_nearest():
    with pytest.raises(onepass.UnknownName, match="unknown optimizer 'rangr': did you mean 'ranger'"):
        onepass.create("rangr", parameters())
    with pytest.raises(ValueError, match="did you mean 'nesterov'"):
        onepass.equations("nestorov")


def test_names_are_taken_in_any_case():
    assert type(onepass.create("RAdam", parameters())) is onepass.RAdam


def test_flags_that_torch_refuses_together_are_refused():
    with pytest.raises(RuntimeError, match="cannot be `True` together"):
        onepass.AdamW(parameters(), fused=True, foreach=True)


def test_a_parameter_listed_twice_steps_once():
    p, q = parameters(shapes=((3,), (3,)))
    with pytest.warns(UserWarning, match="duplicate parameters"):
        opt = onepass.SGD([p, q, p], lr=1.0)
    before = p.detach().clone()
    p.grad = torch.ones_like(p)
    opt.step()
    assert torch.allclose(before - p, torch.ones_like(p))
    assert opt.state[p]["step"] == 1


def test_the_same_parameter_under_two_names_steps_once():
    """As ``named_parameters(remove_duplicate=False)`` gives tied weights."""
    p, q = parameters(shapes=((3,), (3,)))
    with pytest.warns(UserWarning, match="duplicate parameters"):
        opt = onepass.SGD([("embedding", p), ("body", q), ("head", p)], lr=1.0)
    assert opt.param_groups[0]["param_names"] == ["embedding", "body"]
    before = p.detach().clone()
    p.grad = torch.ones_like(p)
    opt.step()
    assert torch.allclose(before - p, torch.ones_like(p))


@pytest.mark.parametrize(
    "number", [np.float64(0.25), np.float32(0.25), np.array([0.25]), Fraction(1, 4), Decimal("0.25")], ids=repr
)
def test_numbers_of_other_libraries_become_pythons_and_make_safe_checkpoints(number):
    opt = onepass.Adam(
        [{"params": parameters(), "weight_decay": number}], lr=number, betas=(number, 0.5), eps=number, amsgrad=np.True_
    )
    group = opt.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.25, 0.25, (0.25, 0.5))
    assert all(type(value) is float for value in (group["lr"], group["weight_decay"], *group["betas"], group["eps"]))
    assert group["amsgrad"] is True
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["param_groups"][0]["lr"] == 0.25


def test_a_flag_is_true_or_false():
    p = parameters()
    for value, meant in ((1, True), (np.False_, False), (torch.tensor(True), True), (None, False)):
        assert onepass.Adam(p, maximize=value).param_groups[0]["maximize"] is meant
    for name in ("maximize", "amsgrad", "fused", "foreach", "differentiable", "skip_nonfinite", "capturable"):
        with pytest.raises(TypeError, match=f"Adam: {name} takes True or False, not 'no'"):
            onepass.Adam(p, **{name: "no"})
    with pytest.raises(TypeError, match="nesterov takes True or False, not 2"):
        onepass.SGD([{"params": p, "nesterov": 2}])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: [{"lr": 1.0}], ValueError, "a parameter group needs 'params'; this one has 'lr'"),
        (lambda p: {"params": p}, TypeError, r"not a dict with the keys 'params'; put the group into a list"),
        (lambda p: {"w": p[0]}, TypeError, r"take its .items\(\) or .values\(\)"),
        (lambda p: torch.nn.Linear(2, 1), TypeError, r"not .*\(Linear\); pass its parameters\(\)"),
        (lambda p: torch.nn.Linear(2, 1).parameters, TypeError, "call it"),
        (lambda p: None, TypeError, "takes a list of tensors, not None"),
        (lambda p: [("w",)], TypeError, r"pairs, not \('w',\)"),
        (lambda p: list(zip(p, p, strict=True)), TypeError, r"\(name, tensor\) pairs, not"),
        (lambda p: [{"params": p, "transforms": []}], ValueError, "transforms holds for the whole optimizer"),
        (lambda p: [{"params": p, "backend": "cpu"}], ValueError, "backend holds for the whole optimizer"),
        (lambda p: [{"params": p, "differentiable": True}], ValueError, "it holds for all groups"),
        (lambda p: [{"params": p, "param_names": ["a"]}], ValueError, "names each of 4 params"),
        (lambda p: [{"params": p, "decay": "none"}], ValueError, "decay names a form, one of l2, decoupled"),
        (lambda p: [{"params": p, "schedule_step": -1}], ValueError, "schedule_step counts steps"),
        (lambda p: [{"params": p, "schedules": {"k": {}}}], ValueError, "is no schedule's state"),
        (
            lambda p: [{"params": p, "schedules": {"betas[2]": schedules.constant(0.5).to_state()}}],
            ValueError,
            r"has a schedule for 'betas\[2\]', which it does not have itself",
        ),
    ],
)
def test_what_is_no_parameters_and_no_group_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        onepass.AdamW(make(parameters()))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lr": 10**400}, ValueError, "lr is an integer or a fraction too large for a float"),
        ({"lr": 1j}, TypeError, "lr takes a number, not 1j"),
        ({"lr": np.array([1.0, 2.0])}, TypeError, "lr takes a number, not array"),
        ({"lr": True}, TypeError, "lr takes a number, not True"),
        ({"lr": torch.tensor(0.1, requires_grad=True)}, ValueError, r"lr requires a gradient.*pass lr.detach\(\)"),
        ({"transforms": onepass.lookahead()}, TypeError, r"takes a list such as .*, not lookahead\(k=5, alpha=0.5\)"),
        ({"transforms": None}, TypeError, "takes a list such as .*, not None"),
        ({"backend": 5}, TypeError, "backend takes a name such as 'reference', or None, not 5"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        onepass.AdamW(parameters(), **arguments)


def test_what_cannot_be_compiled_is_refused_at_once():
    with pytest.raises(ValueError, match="lookahead and lookahead both keep a state under the key 'slow'"):
        onepass.Ranger(parameters(), transforms=[onepass.lookahead()])


def test_names_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="optimizers have names, such as 'adamw'; 5 is none"):
        get_class(5)
    with pytest.raises(TypeError, match="None is none"):
        onepass.equations(None)
    with pytest.raises(ValueError, match=r"weight_decay is the name of a form, .* not \['l2'\]"):
        onepass.optimizer(onepass.rules.adam, weight_decay=["l2"])
    with pytest.raises(ValueError, match="linear: end is an integer or a fraction too large"):
        schedules.linear(0.0, 10**400, steps=3)
    with pytest.raises(ValueError, match=r"shape is one of .*, not \[\]"):
        schedules.one_cycle(1.0, 10, shape=[])


@pytest.mark.filterwarnings("ignore:onepass. the reference runs")
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_integers_may_be_held_and_are_never_stepped(backend):
    """Quantised weights are among a model's parameters, without a gradient; rounding steps to them would stop early."""
    weights, bias = (
        torch.nn.Parameter(torch.tensor([100, -100], dtype=torch.int8), requires_grad=False),
        parameters()[0],
    )
    opt = onepass.AdamW([weights, bias], backend=backend)
    opt.init_state()
    bias.grad = torch.ones_like(bias)
    opt.step()
    assert weights not in opt.state
    assert weights.tolist() == [100, -100]
    weights.grad = torch.ones_like(weights)
    with pytest.raises(RuntimeError, match=r"a parameter of type torch\.int8 has a gradient"):
        opt.step()


def test_an_initial_value_that_a_type_cannot_hold_is_named():
    (p,) = parameters(dtype=torch.float32, shapes=((3,),))
    opt = onepass.Adagrad([p], initial_accumulator_value=1e300)
    p.grad = torch.ones_like(p)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"the state sum would start at 1e\+300, which torch\.float32 cannot hold"):
            opt.step()


def test_a_lazy_parameter_is_stepped_once_it_has_a_shape():
    layer = torch.nn.LazyLinear(2)
    opt = onepass.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    before = layer.weight.detach().clone()
    opt.step()
    assert not torch.equal(layer.weight, before)


def test_groups_of_another_optimizer_are_taken_as_they_are():
    """Those of torch's, and our own in the middle of a schedule, which goes on."""
    params = parameters()
    theirs = torch.optim.AdamW([{"params": params[:2], "lr": 0.5}, {"params": params[2:]}])
    assert [group["lr"] for group in onepass.AdamW(theirs.param_groups).param_groups] == [0.5, 1e-3]
    first = onepass.AdamW(params, lr=schedules.linear(1.0, 0.0, steps=4))
    for p in params:
        p.grad = torch.zeros_like(p)
    first.step()
    first.step()
    second = onepass.AdamW(first.param_groups)
    second.step()
    assert second.param_groups[0]["lr"] == 0.5


def test_a_group_with_a_peak_and_without_a_rate_of_its_own():
    group = {"params": parameters(), "lr_peak": 0.5, "eps": schedules.constant(1e-6)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert onepass.AdamW([group]).param_groups[0]["eps"] == 1e-6


@pytest.mark.parametrize("cls", [onepass.AdamW, onepass.SGD, onepass.optimizer(onepass.rules.adam)])
def test_help_of_every_class_says_what_flags_and_kinds_of_tensors_mean(cls):
    text = pydoc.plain(pydoc.render_doc(cls))
    for word in ("foreach", "fused", "capturable", "maximize", "differentiable"):
        assert f"- ``{word}``: " in text
    for word in ("**Complex**", "**Sparse**", "lazily", "skip_nonfinite: leave"):
        assert word in text
