"""Hostile arguments: what people pass by mistake, from YAML, from NumPy, from a notebook run twice."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from hypothesis import strategies as st

import onepass
from onepass import schedules

HUGE = 10**400

# Functions, for each case needs its own: iterators are used up, and tensors are held on to.


def usable_numbers():
    return [
        0, 0.0, 1e-3, 0.5, 5e-324, 1e-320, np.float32(0.25), np.float64(0.1), np.int64(0), np.array(0.5),
        np.array([0.25]), torch.tensor(0.25), torch.tensor([0.5]), torch.tensor(0), Fraction(1, 3), Decimal("0.1"),
        schedules.constant(0.25), schedules.linear(0.0, 0.5, steps=3),
        schedules.cosine(0.5, 0.0, steps=2).then(schedules.constant(0.1)),
    ]  # fmt: skip


def hostile_numbers():
    return [
        None, "1e-4", "", "adam", b"1", True, False, np.True_, float("nan"), float("inf"), -float("inf"), -1, -0.0, 1,
        2.5, 1e308, -1e-320, HUGE, -HUGE, Fraction(HUGE), Decimal("NaN"), Decimal("sNaN"), Decimal("1e999"), 1j,
        np.complex64(1), np.float64("nan"), np.float16("inf"), np.array([0.1, 0.2]), np.array([]), np.array("0.1"),
        np.array([[0.9, 0.99]]), torch.tensor([0.1, 0.2]), torch.tensor([]), torch.tensor(1j),
        torch.tensor(float("nan")), torch.tensor(-1), torch.tensor(True), torch.tensor(0.1, requires_grad=True),
        torch.empty((), device="meta"), torch.eye(2).to_sparse(), [], [0.1], (0.9, 0.99), [0.9, 0.99], (0.9,),
        (0.9, "0.99"), (None, 0.9), (0.9, True), [[0.9, 0.99]], (0.9, [0.99]), (0.9, HUGE), (0.9, 0.99, 0.999),
        (schedules.constant(0.5), 0.9), (0.9, schedules.linear(0.5, 1.5, steps=2)), np.array([0.9, 0.99]),
        torch.tensor([0.9, 0.99]), {}, {"lr": 1}, set(), iter([0.9, 0.99]), (x for x in ()), range(2), object(),
        float, lambda: 0.1, Unfloatable(), schedules.constant(-1.0), schedules.linear(0.0, 1e308, steps=1),
        1e308 * schedules.constant(1e308), onepass.decay.l2(0.1), onepass.decay.independent(0.1),
        onepass.decay.decoupled(schedules.constant(0.1)), onepass.decay.l2, onepass.lookahead(),
    ]  # fmt: skip


def hostile_flags():
    return [
        True, False, None, 0, 1, 2, np.True_, "no", "", [], torch.tensor(True), torch.tensor([True, False]),
        np.array([1, 0]), float("nan"), object(), schedules.constant(1.0), {},
    ]  # fmt: skip


def hostile_transforms():
    return [
        None, 5, "cautious", [None], ["cautious"], [[]], {}, {"lookahead": 5}, onepass.lookahead(), onepass.lookahead,
        [onepass.lookahead], [onepass.cautious(), onepass.cautious()], [onepass.decay.l2(0.1)],
        iter([onepass.cautious()]), [onepass.lookahead(k=2)], (onepass.clip_norm(1.0), onepass.average(0.9)),
        [onepass.Adam], [onepass.clip_value(schedules.linear(1.0, 0.5, steps=2))], torch.ones(2), [torch.ones(())],
        [onepass.centralize(), onepass.clip_adaptive(), onepass.cautious_mask()],
    ]  # fmt: skip


def hostile_backends():
    return [
        None, "reference", "cuda", "", 5, True, [], ["cpu"], torch.ones(2), np.array(["cpu", "cpu"]),
        torch.device("cpu"), {},
    ]  # fmt: skip


class Unfloatable:
    """A number of a library that gives up in its own way."""

    def __float__(self):
        raise ZeroDivisionError("no value yet")


def leaf(*shape, dtype=torch.float32):
    return torch.nn.Parameter(torch.linspace(1, 2, int(np.prod(shape)), dtype=dtype).reshape(shape))


def lazy():
    return next(torch.nn.LazyLinear(2).parameters())


def usable_params():
    """What stands for one parameter in a list."""
    return [
        leaf(3), leaf(2, 2, dtype=torch.float64), leaf(2, dtype=torch.bfloat16), leaf(), leaf(0, 3),
        leaf(2, dtype=torch.complex64), leaf(3, 2).data.t().requires_grad_(), torch.ones(2),
        leaf(2).requires_grad_(False),
    ]  # fmt: skip


def hostile_params():
    return [
        None, 1.0, "weight", np.ones(2), [], {}, [leaf(2)], 2 * leaf(2), torch.tensor([1, 2]), torch.tensor([True]),
        (), ("w",), ("w", None), ("w", leaf(2)), ("w", leaf(2), 3), (leaf(2), "w"), (3, leaf(2)), (leaf(2), leaf(2)),
        ([], leaf(2)), ["w", leaf(2)], {"params": [leaf(2)]}, torch.nn.Linear(2, 1),
        torch.empty(2, device="meta", requires_grad=True), torch.eye(2).to_sparse().requires_grad_(),
        torch.ones(2).to(torch.float8_e4m3fn), lazy(), object(), torch.ones(1).expand(3).requires_grad_(),
        ("v", torch.tensor([1, 2])),
    ]  # fmt: skip


def hostile_lists():
    """What stands for all parameters."""
    return [
        None, 5, "weights", b"weights", leaf(3), leaf(), [], (), {}, iter([]), torch.nn.Linear(2, 1),
        torch.nn.Linear(2, 1).parameters, torch.nn.Linear(2, 1).parameters(),
        torch.nn.Linear(2, 1).named_parameters(), torch.nn.Linear(2, 1).state_dict(), {"params": [leaf(2)]},
        {"w": leaf(2)}, np.ones(3), {leaf(2), leaf(2)}, [[leaf(2)]], [[]], [()], [{}], [{"lr": 1.0}],
        torch.nn.ParameterList([leaf(2)]), torch.nn.ParameterDict({"w": leaf(2)}), range(3),
        onepass.param_groups(torch.nn.Linear(2, 1)), map(float, "12"), [leaf(2), {"params": [leaf(2)]}],
        [{"params": [leaf(2)]}, leaf(2)], [("w", leaf(2)), leaf(2)], [leaf(2), ("w", leaf(2))],
        [{"params": [("w", leaf(2))]}, {"params": [leaf(2)]}], [("w", leaf(2)), ("w", leaf(3))],
        [{"params": {leaf(2)}}], [{"params": None}], [{"params": 5}], [{"params": "w"}], [{"params": iter([])}],
        [{"params": []}, {"params": ()}], [{"Params": [leaf(2)]}], [{"params": {"w": leaf(2)}}], [None],
        [{"params": [[leaf(2)]]}], twice(), tied(), shared(), (p for p in [leaf(2), leaf(3)]),
        [{"params": (p for p in [leaf(2)])}], torch.optim.SGD([leaf(2)], lr=0.1).param_groups,
        onepass.AdamW([("w", leaf(2))]).param_groups, [{"params": [leaf(2)], 5: 6}],
        [{"params": leaf(2), "name": "head", "extra": [1, {"a": 2}]}],
        [{"params": [leaf(2)], 5: schedules.constant(1.0)}],
    ]  # fmt: skip


def twice():
    p = leaf(2)
    return [p, p]


def tied():
    p = leaf(2)
    return [("embedding", p), ("other", leaf(1)), ("head", p)]


def shared():
    p = leaf(2)
    return [{"params": [p]}, {"params": [p]}]


# Keys that a group's dict may have by mistake, or because it comes from another optimizer's groups or a checkpoint.
GROUP_KEYS = {
    **dict.fromkeys(("lr", "weight_decay", "betas", "momentum", "eps", "lookahead_k", "nonsense"), "number"),
    **dict.fromkeys(("initial_lr", "max_lr", "lr_max", "lr_peak"), "number"),
    **dict.fromkeys(("schedule_step", "schedules", "decay", "param_names"), "reserved"),
    **dict.fromkeys(("maximize", "foreach", "fused", "capturable", "differentiable", "amsgrad", "nesterov"), "flag"),
    **dict.fromkeys(("decoupled_weight_decay", "skip_nonfinite"), "flag"),
    "transforms": "transforms",
    "backend": "backend",
}


def reserved():
    return [
        {"lr": schedules.constant(0.1).to_state()}, {"nope": schedules.constant(0.1).to_state()},
        {"betas[7]": schedules.constant(0.1).to_state()}, {"betas[x]": schedules.constant(0.1).to_state()},
        {"lr": {"schedule": "spline"}}, {"lr": schedules.constant(0.1)}, "l2", ["a", "b"],
        {5: schedules.constant(0.1).to_state()}, {"lr[0]": schedules.constant(0.1).to_state()}, ["w"], 7,
    ]  # fmt: skip


POOLS = {
    "number": (usable_numbers, usable_numbers, hostile_numbers),
    "flag": (hostile_flags, hostile_flags, hostile_numbers),
    "transforms": (hostile_transforms, hostile_transforms, hostile_numbers),
    "backend": (hostile_backends,),
    "reserved": (reserved, hostile_numbers),
}


class Later:
    """A call with a hostile argument, to be made where its error is looked at."""

    def __init__(self, function, *arguments, **named):
        self.function, self.arguments, self.named = function, arguments, named

    def __call__(self):
        return self.function(*self.arguments, **self.named)

    def __repr__(self):
        return f"{self.function.__name__}(*{self.arguments}, **{self.named})"


def listed(transform):
    def call(**values):
        return [transform(**values)]

    call.__name__ = transform.name
    return call


def scaled(factor):
    return factor * schedules.constant(1.0)


NUMBERS_OF_CALLS = {
    schedules.constant: (1, 2), schedules.linear: (3,), schedules.cosine: (3,), schedules.step: (2, 3),
    schedules.one_cycle: (2, 4), schedules.warmup_stable_decay: (4,), scaled: (1,),
    schedules.constant(1.0, steps=2).then: (1,), onepass.decay.l2: (1,), onepass.decay.decoupled: (1,),
    onepass.decay.independent: (1, 2), onepass.decay.cautious: (1,),
}  # fmt: skip
TRANSFORM_CALLS = {
    onepass.lookahead: ("k", "alpha"), onepass.clip_value: ("limit",), onepass.clip_norm: ("max_norm",),
    onepass.clip_adaptive: ("clipping", "eps"), onepass.average: ("decay",), onepass.cautious: ("k",),
}  # fmt: skip


def kind_of(key, default):
    """Which pool an argument draws from."""
    if key in ("transforms", "backend"):
        return key
    if key in ("foreach", "fused") or isinstance(default, bool):
        return "flag"
    return "number"


def one_of(draw, pool):
    values = pool()
    return values[draw(st.integers(0, len(values) - 1))]


def drawn(draw, kind):
    call = draw(st.integers(0, 5)) == 0
    if call and kind == "number":
        function = draw(st.sampled_from(list(NUMBERS_OF_CALLS)))
        count = draw(st.sampled_from(NUMBERS_OF_CALLS[function]))
        return Later(function, *(one_of(draw, draw(st.sampled_from(POOLS[kind]))) for _ in range(count)))
    if call and kind == "transforms":
        function = draw(st.sampled_from(list(TRANSFORM_CALLS)))
        names = draw(st.lists(st.sampled_from(TRANSFORM_CALLS[function]), max_size=2, unique=True))
        given = {name: one_of(draw, draw(st.sampled_from(POOLS["number"]))) for name in names}
        return Later(listed(function), **given)
    return one_of(draw, draw(st.sampled_from(POOLS[kind])))


@st.composite
def parameter_lists(draw):
    """What a constructor gets as its parameters, half the time without any fault of its own."""
    way = draw(st.integers(0, 7))
    if way == 0:
        return one_of(draw, hostile_lists)
    params = [one_of(draw, usable_params) for _ in range(draw(st.integers(1, 3)))]
    if way == 1:
        params.insert(draw(st.integers(0, len(params))), one_of(draw, hostile_params))
    if way == 2:
        params = [(f"w{i}", p) for i, p in enumerate(params)]
    if way < 5:
        return draw(st.sampled_from([list, tuple, iter]))(params)
    groups = []
    for p in params:
        keys = draw(st.lists(st.sampled_from(sorted(GROUP_KEYS)), max_size=2))
        group = {"params": [p]}
        for key in keys:
            group[key] = drawn(draw, GROUP_KEYS[key])
        groups.append(group)
    return groups


@st.composite
def keyword_arguments(draw, accepted):
    """Arguments for a constructor that has these defaults: some usable, some not, now and then an unknown one."""
    keys = draw(st.lists(st.sampled_from(sorted(accepted)), max_size=2, unique=True))
    arguments = {key: drawn(draw, kind_of(key, accepted[key])) for key in keys}
    if draw(st.integers(0, 19)) == 0:
        arguments[draw(st.sampled_from(["Lr", "momentun", "self", "defaults"]))] = 1
    return arguments
