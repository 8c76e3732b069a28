"""`init` and `update` say what is wrong with what they are given, and how to mend it."""

import numpy as np
import pytest
import torch

import onepass
from onepass import decay, lookahead
from onepass.functional import init, update

ONE = np.ones(2)


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ([1.0], TypeError, r"params\[0\] is 1.0 of type float, not an array of NumPy"),
        ({"a": ["x"]}, TypeError, r"params\['a'\]\[0\] is 'x'"),
        ({1, 2}, TypeError, r"of type set"),
        ([ONE, torch.ones(2)], TypeError, r"params\[0\] is an array of NumPy and params\[1\] one of torch"),
        ([np.ones(2, int)], TypeError, r"params\[0\] is of type int64; a parameter is of float16"),
        ([np.ones(2, complex)], TypeError, r"complex128"),
        ([np.ones(2, bool)], TypeError, r"bool"),
        ([torch.ones(2, dtype=torch.int32)], TypeError, r"int32"),
        ({}, ValueError, "there are no arrays in params"),
        ([None], ValueError, "there are no arrays in params"),
    ],
)
def test_init_refuses_what_cannot_be_trained(params, kind, message):
    with pytest.raises(kind, match=message):
        init(params, "adam")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"rule": "adma"}, ValueError, "unknown rule 'adma': choose one of adadelta"),
        ({"rule": 3}, TypeError, "a rule is a name such as 'adamw'"),
        ({"rule": "adam", "lr": -1}, ValueError, r"adam: lr must lie in \[0, inf\), and -1 does not"),
        ({"rule": "adam", "lr": "1e-3"}, TypeError, "without the quotes"),
        ({"rule": "adam", "lr": float("nan")}, ValueError, "lr must lie in"),
        ({"rule": "adam", "lr": onepass.schedules.linear(1.0, 0.0, steps=5)}, TypeError, r"lr=schedule\(step\)"),
        ({"rule": "adam", "betas": 0.9}, ValueError, "betas takes 2 numbers"),
        ({"rule": "adam", "betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must lie in \[0, 1\)"),
        ({"rule": "adam", "beta1": 0.9}, TypeError, "adam takes no 'beta1'; it takes lr, betas"),
        ({"rule": "adam", "weight_decay": lookahead()}, ValueError, "weight_decay takes a number or one of"),
        ({"rule": "adam", "transforms": [decay.l2(0.1)]}, ValueError, "belongs in weight_decay="),
        ({"rule": "adam", "transforms": [lookahead]}, TypeError, r"call it: lookahead\(\)"),
        ({"rule": "ranger", "transforms": [lookahead()]}, ValueError, "both keep a state under the key 'slow'"),
    ],
)
def test_init_refuses_what_it_does_not_know(arguments, kind, message):
    with pytest.raises(kind, match=message):
        init([ONE], **arguments)


def test_a_rule_that_decays_by_itself_takes_no_form():
    @onepass.rule
    def own(g, p, *, weight_decay=0.1):
        return g + weight_decay * p

    assert update([ONE], [0 * ONE], init([ONE], own, lr=1.0))[0][0][0] == pytest.approx(0.9)
    with pytest.raises(ValueError, match="own decays by itself: weight_decay takes a number"):
        init([ONE], own, weight_decay=decay.l2(0.1))


@pytest.mark.parametrize(
    ("grads", "kind", "message"),
    [
        ({"a": ONE}, ValueError, r"grads lacks the key 'b'; it has 'a'"),
        ({"a": ONE, "b": [ONE], "c": ONE}, ValueError, r"grads has the key 'c', which params lacks"),
        ({"a": ONE, "b": [None]}, ValueError, r"grads\['b'\]\[0\] is missing \(None\)"),
        ({"a": ONE, "b": [ONE, ONE]}, ValueError, r"params\['b'\] has 1 entries, and grads\['b'\] has 2"),
        ({"a": ONE, "b": ONE}, ValueError, r"params\['b'\] is a list, and grads\['b'\] is a ndarray of shape \(2,\)"),
        ({"a": [ONE], "b": [ONE]}, ValueError, r"params\['a'\] is a ndarray of shape \(2,\), and grads\['a'\] is a l"),
        ([ONE, ONE], ValueError, r"params is a dict, and grads is a list"),
        ({"a": np.ones(3), "b": [ONE]}, ValueError, r"grads\['a'\] has the shape \(3,\), and params\['a'\] \(2,\)"),
        ({"a": np.ones((2, 1)), "b": [ONE]}, ValueError, r"grads\['a'\] has the shape \(2, 1\)"),
        ({"a": torch.ones(2), "b": [ONE]}, TypeError, r"params\['a'\] is an array of NumPy and grads\['a'\] one of t"),
        ({"a": 1.0, "b": [ONE]}, TypeError, r"grads\['a'\] is 1.0 of type float"),
        ({"a": np.ones(2, int), "b": [ONE]}, TypeError, r"grads\['a'\] is of type int64"),
        ({"a": np.ones(2, complex), "b": [ONE]}, TypeError, r"grads\['a'\] is of type complex128"),
    ],
)
def test_update_refuses_gradients_that_do_not_fit(grads, kind, message):
    params = {"a": ONE, "b": [ONE]}
    with pytest.raises(kind, match=message):
        update(params, grads, init(params, "adam"))


def test_a_gradient_where_there_is_no_parameter():
    with pytest.raises(ValueError, match=r"params\[1\] is None, and grads\[1\] is a ndarray"):
        update([ONE, None], [ONE, ONE], init([ONE, None], "sgd"))


def test_update_refuses_a_state_of_other_parameters():
    with pytest.raises(ValueError, match=r"params is a list, and state.tensors\['exp_avg'\] is a dict"):
        update([ONE], [ONE], init({"a": ONE}, "adam"))
    with pytest.raises(ValueError, match=r"state.tensors\['exp_avg'\]\[0\] has the shape \(3,\), and params\[0\]"):
        update([ONE], [ONE], init([np.ones(3)], "adam"))
    with pytest.raises(TypeError, match="update takes the state that init returned, not None"):
        update([ONE], [ONE], None)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"learning_rate": 1.0}, TypeError, "adam has no hyperparameter 'learning_rate' to change; it has: lr, betas"),
        ({"maximize": True}, TypeError, "no hyperparameter 'maximize'"),
        ({"lr": -1.0}, ValueError, "lr must lie in"),
        ({"lr": None}, TypeError, "lr takes a number, not None"),
        ({"betas": (0.9,)}, ValueError, "betas takes 2 numbers"),
        ({"betas": (0.9, 2.0)}, ValueError, "must lie in"),
        ({"weight_decay": 0.1}, ValueError, "adam was made without weight decay"),
    ],
)
def test_update_refuses_changes_that_make_no_sense(changes, kind, message):
    with pytest.raises(kind, match=message):
        update([ONE], [ONE], init([ONE], "adam"), **changes)
