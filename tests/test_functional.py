"""`init` and `update` on NumPy's arrays and torch's tensors: numbers, purity, trees, types, changes, errors."""

import copy
import inspect
import pickle
import subprocess
import sys
from collections import OrderedDict, defaultdict, namedtuple

import golden
import golden.make
import numpy as np
import pytest
import torch

import onepass
from onepass import average, clip_norm, decay, lookahead, maximum, mean, norm, scalar, sqrt, where
from onepass.functional import init, list_rules, update
from onepass.functional.recipe import PRESETS
from onepass.optim.registry import CLASSES

# Presets and the torch classes


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_preset_has_the_defaults_of_the_class(name):
    """SGD and RMSprop have no momentum by default, which is the rule without it."""
    cls, preset = CLASSES[name], PRESETS[name]
    defaults = {key: p.default for key, p in inspect.signature(cls).parameters.items() if key != "params"}
    assert cls.rule_for(defaults) is preset.rule
    assert preset.built_in == cls.built_in
    state = init([np.zeros(2)], name)
    items = dict(state.recipe.items)
    assert {key: items[key] for key in items if key != "maximize"} == {
        key: defaults[key] for key in items if key != "maximize"
    }
    form = cls([torch.zeros(2, requires_grad=True)]).param_groups[0]
    opt = cls([torch.zeros(2, requires_grad=True)])
    assert opt.decay_form_of(form) == preset.decay_form


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_it_steps_as_the_torch_class_does_with_its_defaults(name):
    random = np.random.default_rng(0)
    start = [random.standard_normal(shape) for shape in ((4, 3), (3,), ())]
    theirs = [torch.tensor(p, requires_grad=True) for p in start]
    opt = onepass.create(name, theirs, backend="reference")
    params, state = start, init(start, name)
    for _ in range(9):
        grads = [random.standard_normal(p.shape) for p in start]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        opt.step()
        params, state = update(params, grads, state)
    assert golden.error(params, [p.detach().numpy() for p in theirs]) < golden.bound("float64")


def test_the_defaults_are_used_without_an_lr():
    assert dict(init([np.zeros(1)], "adadelta").recipe.items)["lr"] == 1.0
    assert dict(init([np.zeros(1)], "adamw").recipe.items)["weight_decay"] == 0.01


# Purity


def everything(name, dtype="float64", **more):
    params = {"w": np.array([[1.0, -2.0], [0.5, 3.0]], dtype), "b": np.array([0.1, 0.2], dtype), "s": np.array(2.0)}
    transforms = [clip_norm(1.0)]
    if name != "ranger":
        transforms.append(lookahead(k=2))
    return params, init(params, name, transforms=[*transforms, average(0.9)], **more)


def arrays_of(tree):
    return [x for _, x in onepass.functional.trees.leaves(tree) if isinstance(x, (np.ndarray, torch.Tensor))]


@pytest.mark.parametrize("name", list_rules())
def test_nothing_that_was_given_is_written_to(name):
    params, state = everything(name)
    for _ in range(4):
        grads = {key: np.ones_like(p) for key, p in params.items()}
        before = copy.deepcopy((params, grads, dict(state.tensors)))
        for x in arrays_of([params, grads, dict(state.tensors)]):
            x.flags.writeable = False
        first = update(params, grads, state)
        second = update(params, grads, state)
        np.testing.assert_equal((params, grads, dict(state.tensors)), before)
        np.testing.assert_equal(first[0], second[0])
        np.testing.assert_equal(dict(first[1].tensors), dict(second[1].tensors))
        params, state = first


@pytest.mark.parametrize("name", list_rules())
def test_new_arrays_are_nobody_elses(name):
    """The caller may write into its own arrays, and into what it got: neither shows in a state."""
    params, state = everything(name)
    for _ in range(4):
        mine = arrays_of([params, dict(state.tensors)])
        assert all(not np.shares_memory(a, b) for i, a in enumerate(mine) for b in mine[:i])
        grads = {key: np.ones_like(p) for key, p in params.items()}
        new, state = update(params, grads, state)
        given = arrays_of([params, grads])
        assert all(not np.shares_memory(a, b) for a in given for b in arrays_of([new, dict(state.tensors)]))
        params = new


def test_a_state_can_be_taken_up_again():
    params, state = everything("nadam")
    grads = {key: np.ones_like(p) for key, p in params.items()}
    once, later = update(params, grads, state)
    for copied in (pickle.loads(pickle.dumps(later)), copy.deepcopy(later)):
        np.testing.assert_equal(update(once, grads, copied)[0], update(once, grads, later)[0])
        assert copied.recipe == later.recipe
        assert hash(copied.recipe) == hash(later.recipe)


def test_reports_are_those_of_the_step():
    params, state = everything("adam")
    assert state.reports == {"last_grad_norm": 0.0}
    grads = {key: 2 * np.ones_like(p) for key, p in params.items()}
    _, state = update(params, grads, state)
    assert float(state.reports["last_grad_norm"]) == pytest.approx(2 * 7**0.5, rel=1e-15)


# Trees

Layer = namedtuple("Layer", "w b")


def test_any_nesting_keeps_its_form():
    def tree(x):
        layers = OrderedDict(second=[Layer(w=x(2, 3), b=None), (x(3), ())], first={"deep": [[x()]]})
        return {"layers": layers, "more": defaultdict(list, extra=[x(2)])}

    params, grads = tree(lambda *shape: np.zeros(shape)), tree(lambda *shape: np.ones(shape))
    state = init(params, "nadam", lr=0.5)
    new, state = update(params, grads, state)
    layer = new["layers"]["second"][0]
    assert list(new["layers"]) == ["second", "first"]
    assert type(new["layers"]) is OrderedDict
    assert type(layer) is Layer
    assert layer.b is None
    assert new["layers"]["second"][1][1] == ()
    assert new["more"]["missing"] == []
    assert isinstance(new["layers"]["first"]["deep"][0][0], np.ndarray)
    assert isinstance(state.tensors["mu_product"]["layers"]["first"]["deep"][0][0], float)
    assert type(state.tensors["exp_avg"]["layers"]["second"][0]) is Layer


def test_a_single_array_is_a_tree():
    new, _ = update(np.zeros(2), np.ones(2), init(np.zeros(2), "sgd", lr=1.0))
    np.testing.assert_equal(new, -np.ones(2))


def test_the_order_of_keys_in_gradients_does_not_matter():
    params, state = everything("adam")
    grads = {key: np.full_like(p, i) for i, (key, p) in enumerate(params.items())}
    turned = dict(reversed(grads.items()))
    np.testing.assert_equal(update(params, grads, state)[0], update(params, turned, state)[0])


def test_arrays_without_elements_stay_as_they_are():
    params = [np.zeros((0, 3)), np.zeros((3, 0)), np.ones(2)]
    state = init(params, "ranger", transforms=[clip_norm(1.0), onepass.cautious()])
    new, state = update(params, [np.zeros((0, 3)), np.zeros((3, 0)), np.ones(2)], state)
    assert [p.shape for p in new] == [(0, 3), (3, 0), (2,)]
    assert float(state.reports["last_grad_norm"]) == pytest.approx(2**0.5)
    alone = init([np.zeros(0)], "adam", transforms=[clip_norm(1.0)])
    assert float(update([np.zeros(0)], [np.zeros(0)], alone)[1].reports["last_grad_norm"]) == 0.0


# Types


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", list_rules())
def test_numpy_stores_arrays_as_they_came(name, dtype):
    params, state = everything(name, dtype)
    for _ in range(3):
        params, state = update(params, {key: np.ones_like(p, dtype="float64") for key, p in params.items()}, state)
    assert params["w"].dtype == params["b"].dtype == dtype
    assert params["s"].dtype == "float64"
    for key, tree in state.tensors.items():
        if key not in state.recipe.program.scalars:
            precise = key == "average" and dtype == "float16"
            assert tree["w"].dtype == ("float32" if precise else dtype), key


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", list_rules())
def test_half_precision_is_computed_in_float32(name, dtype):
    """As the reference does it: to a unit in the last place of what is stored, here exactly."""
    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator).to(kind) for shape in ((4, 3), (3,))]
    theirs = [p.clone().requires_grad_() for p in start]
    cls, flags = golden.make.FLAGS.get(name, (CLASSES.get(name), {}))
    opt = cls(theirs, lr=0.1, transforms=[average(0.99)], backend="reference", **flags)
    params, state = start, init(start, name, lr=0.1, transforms=[average(0.99)])
    for _ in range(8):
        grads = [torch.randn(p.shape, generator=generator).to(kind) for p in start]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = g
        opt.step()
        params, state = update(params, grads, state)
    assert all(p.dtype == kind and torch.equal(p, q) for p, q in zip(params, theirs, strict=True))
    assert all(torch.equal(a, opt.state[q]["average"]) for a, q in zip(state.tensors["average"], theirs, strict=True))
    assert state.tensors["average"][0].dtype == torch.float32


def test_numpys_scalars_are_arrays():
    """What arithmetic leaves of a float64 array without dimensions is a Python float as well."""

    @onepass.rule
    def rooted(g, s):
        s = s + sqrt(g * g)
        return g / maximum(mean(s, over="row"), norm(s)), s

    new, state = update([np.array(1.0)], [np.array(-4.0)], init([np.array(1.0)], rooted, lr=1.0))
    assert isinstance(new[0], np.ndarray)
    assert new[0] == 2.0
    assert isinstance(state.tensors["s"][0], np.ndarray)


def test_torchs_autograd_follows_the_step():
    p, g = torch.ones(3, dtype=torch.float64), torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g: update([p], [g], init([p], "adam", lr=0.1))[0][0], (g,))
    assert not update([p], [g.detach()], init([p], "adam"))[0][0].requires_grad


# Rules of one's own


def test_a_rule_of_ones_own_with_lr_in_its_signature():
    @onepass.rule(lr=0.5)
    def whole(g, lr, t):
        return lr * t * g

    params, state = [np.zeros(2)], init([np.zeros(2)], whole)
    params, state = update(params, [np.ones(2)], state)
    params, state = update(params, [np.ones(2)], state, lr=0.25)
    np.testing.assert_equal(params[0], np.full(2, -1.0))


def test_states_that_are_smaller_than_their_parameter_are_spread_over_it():
    @onepass.rule(init={"first": lambda p: mean(p)})
    def odd(g, count, row, first, t):
        return g, t, mean(g, over="row"), first

    state = init([np.arange(6.0).reshape(2, 3)], odd)
    _, state = update([np.zeros((2, 3))], [np.arange(6.0).reshape(2, 3)], state)
    np.testing.assert_equal(state.tensors["count"][0], np.ones((2, 3)))
    np.testing.assert_equal(state.tensors["row"][0], np.array([[1.0] * 3, [4.0] * 3]))
    np.testing.assert_equal(state.tensors["first"][0], np.full((2, 3), 2.5))


def test_branches_on_dimensions_and_on_scalar_states():
    @onepass.rule(init={"count": scalar(0.0)})
    def rule(g, count, ndim):
        count = count + ndim
        return where(ndim > 1, where(count > 3, 10 * g, g), 0.0 * g), count

    params = [np.zeros((1, 1)), np.zeros(1)]
    state = init(params, rule, lr=1.0, transforms=[clip_norm(100.0)])
    seen = []
    for _ in range(2):
        params, state = update(params, [np.ones((1, 1)), np.ones(1)], state)
        seen.append(params[0].item())
    assert seen == [-1.0, -11.0]
    assert params[1] == 0.0
    assert state.tensors["count"] == [4.0, 2.0]


# Options


def test_maximize_climbs():
    params = [np.ones(3)]
    up, _ = update(params, [np.ones(3)], init(params, "adam", lr=0.1, maximize=True))
    down, _ = update(params, [-np.ones(3)], init(params, "adam", lr=0.1))
    np.testing.assert_equal(up, down)
    assert (up[0] > 1).all()


@pytest.mark.parametrize("value", [0.1, np.float32(0.1), np.array(0.1), torch.tensor(0.1, dtype=torch.float64)])
def test_hyperparameters_may_be_any_number(value):
    state = init([np.ones(2)], "adam", lr=value, weight_decay=value, betas=[value, np.array(0.9)])
    hash(state.recipe)
    same = init([np.ones(2)], "adam", lr=float(value), weight_decay=float(value), betas=(float(value), 0.9))
    assert state.recipe == same.recipe
    with_transform = init([np.ones(2)], "adam", transforms=[clip_norm(np.array(0.5))])
    hash(with_transform.recipe)
    np.testing.assert_equal(update([np.ones(2)], [np.ones(2)], state)[0], update([np.ones(2)], [np.ones(2)], same)[0])


def test_changes_hold_for_one_step():
    random = np.random.default_rng(0)
    params, state = [random.standard_normal(4)], init([np.zeros(4)], "adamw", lr=0.1)
    theirs = torch.tensor(params[0], requires_grad=True)
    opt = onepass.AdamW([theirs], lr=0.1, backend="reference")
    for t in range(1, 7):
        changes = {"lr": 0.1 / t, "betas": (0.8, 0.9), "weight_decay": 0.01 * t, "eps": 10.0**-t} if t % 2 else {}
        opt.param_groups[0].update({"lr": 0.1, "betas": (0.9, 0.999), "weight_decay": 0.01, "eps": 1e-8, **changes})
        grads = [random.standard_normal(4)]
        theirs.grad = torch.tensor(grads[0])
        opt.step()
        params, state = update(params, grads, state, **changes)
    assert golden.error(params, [theirs.detach().numpy()]) < golden.bound("float64")


def test_a_transforms_hyperparameter_can_be_changed():
    state = init([np.ones(1)], "sgd", lr=1.0, transforms=[clip_norm(1.0)])
    new, _ = update([np.ones(1)], [np.array([100.0])], state, clip_norm_max_norm=2.0)
    assert new[0][0] == pytest.approx(-1.0, abs=1e-6)


def test_independent_decay_keeps_its_height():
    p = [np.ones(1)]
    state = init(p, "sgd", lr=0.5, weight_decay=decay.independent(0.1))
    assert update(p, [np.zeros(1)], state, lr=0.25)[0][0] == pytest.approx(0.95)
    assert update(p, [np.zeros(1)], state, lr=0.25, lr_max=0.25)[0][0] == pytest.approx(0.9)


def test_weight_decay_can_be_switched_off_for_a_step():
    p = [np.ones(1)]
    assert update(p, [np.zeros(1)], init(p, "sgd", lr=1.0, weight_decay=0.1), weight_decay=0.0)[0][0] == 1.0


def test_division_by_zero_is_silent_where_it_is_harmless():
    p = [np.ones((2, 3)), np.zeros(3)]
    new, _ = update(p, [np.zeros((2, 3)), np.zeros(3)], init(p, "adam", transforms=[onepass.clip_adaptive()], eps=1e-8))
    np.testing.assert_equal(new, p)


def test_cupy_is_served_as_numpy_is():
    """CuPy itself needs a GPU; here a package of its name stands in for it, to show which way an array takes."""
    code = """
import sys, numpy, types
cupy = types.ModuleType("cupy")
cupy.__dict__.update({name: getattr(numpy, name) for name in dir(numpy) if not name.startswith("__")})
class ndarray(numpy.ndarray):
    pass
ndarray.__module__ = "cupy"
sys.modules["cupy"] = cupy
from onepass.functional import init, update
from onepass.functional.library import library_of
x = numpy.ones(3).view(ndarray)
assert library_of([("x", x)]).name == "CuPy"
update([x], [x], init([x], "adam"))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_onepass_is_imported_without_torch_and_numba():
    code = """
import sys
sys.modules["torch"] = sys.modules["numba"] = None
import numpy, onepass
params, state = [numpy.ones(2)], onepass.functional.init([numpy.ones(2)], "adamw")
onepass.functional.update(params, params, state)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
