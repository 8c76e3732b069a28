"""Every rule, with every transform, in every storage type: the kernels against the reference."""

import pytest
import torch
from parity import hold

import onepass
from onepass import transforms
from onepass.lang import Transform

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)


@onepass.rule(state={"m": "exp_avg"})
def signum(g, m, *, momentum=0.9):
    m = onepass.ema(m, g, momentum)
    return onepass.sign(m), m


@onepass.rule
def every_word(g, p, s, t, lr, *, rate=0.3):
    """A rule that returns its whole step, and uses what no rule of the library does."""
    scale = onepass.exp(-onepass.absolute(g)) + onepass.log(1 + p * p) + (1 + g * g) ** 0.75
    share = onepass.absolute(g) / (onepass.norm(g) + onepass.mean(onepass.absolute(p)) + 1.0)
    both = (g > -2.0) & (g <= 2.0) | (p >= 3.0)
    s = onepass.where(both, onepass.minimum(onepass.maximum(g, s), 1.5), rate * s)
    return lr * (share * scale + s) * onepass.where(t < 4, 0.5, 1.0), s


@onepass.rule
def by_rows(g, p, v):
    """Row statistics that depend on one another."""
    centred = g - onepass.mean(g, over="row")
    v = onepass.ema(v, onepass.sum_(centred * centred, over="row") + p * p, 0.9)
    return centred / (onepass.sqrt(v) + 0.1), v


CLASSES = {
    "signum": onepass.optimizer(signum),
    "every_word": onepass.optimizer(every_word),
    "by_rows": onepass.optimizer(by_rows),
}
# Flags that choose another rule, or another program.
FLAGS = {
    "sgd": [{"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3}, {"momentum": 0.9, "nesterov": True}],
    "rmsprop": [{"centered": True}, {"momentum": 0.9}, {"centered": True, "momentum": 0.9}],
    "adam": [{"amsgrad": True}],
    "adamw": [{"amsgrad": True}],
    "adagrad": [{"lr_decay": 0.1, "initial_accumulator_value": 0.2}],
}
OPTIMIZERS = [(name, {}) for name in (*onepass.list_optimizers(), *CLASSES)]
OPTIMIZERS += [(name, flags) for name, choices in FLAGS.items() for flags in choices]

# Those that a user may give, in their registry's order; decay has an argument of its own.
TRANSFORMS = [getattr(transforms, name) for name in transforms.__all__]
TRANSFORMS = [t for t in TRANSFORMS if isinstance(t, Transform) and t.name not in ("maximize", "heavy_ball")]
SINGLE = [(t,) for t in TRANSFORMS]
TOGETHER = [TRANSFORMS[::2], TRANSFORMS[1::2]]
TOGETHER = [tuple(stack) for stack in TOGETHER]
STACKS = [(), *TOGETHER, *SINGLE]
FORMS = list(transforms.decay.FORMS.values())


def make(name, options, stack=(), decay=None, **more):
    cls = CLASSES.get(name)
    options = {**options, **more, "transforms": [t() for t in stack]}
    if decay is not None:
        options["weight_decay"] = decay

    def build(params, backend):
        create = cls if cls is not None else lambda *args, **kwargs: onepass.create(name, *args, **kwargs)
        return create(params, backend=backend, **options)

    return build


def conflict(name, options, stack, decay):
    """Why these cannot be combined at all, in the library's words, or None."""
    try:
        opt = make(name, options, stack, decay)([torch.nn.Parameter(torch.ones(2))], "reference")
        opt.program(opt.param_groups[0])
    except ValueError as error:
        return str(error)
    return None


def label(name, options, stack=(), dtype=None, form=None):
    parts = [name, *(f"{key}={value}" for key, value in options.items()), *(t.name for t in stack)]
    parts += [form.name] if form else []
    return "-".join([*parts, *([str(dtype).removeprefix("torch.")] if dtype else [])])


def stacks_for(i, name, options):
    """Every transform: alone for the library's optimizers as they come, with others for the rest, to compile less."""
    return STACKS if name not in CLASSES and not options else [(), *TOGETHER, SINGLE[i % len(SINGLE)]]


# Types and forms of decay go round, so that each optimizer and each stack meets every one of them.
CASES = [
    (name, options, stack, DTYPES[(i + j) % len(DTYPES)], [None, *FORMS][(i + j // len(DTYPES)) % (1 + len(FORMS))])
    for i, (name, options) in enumerate(OPTIMIZERS)
    for j, stack in enumerate(stacks_for(i, name, options))
]
POSSIBLE = [c for c in CASES if conflict(c[0], c[1], c[2], c[4] and c[4](weight_decay=0.1)) is None]


@pytest.mark.parametrize("case", POSSIBLE, ids=[label(*c) for c in POSSIBLE])
def test_kernels_do_what_the_reference_does(case):
    name, options, stack, dtype, form = case
    hold(make(name, options, stack, form and form(weight_decay=0.1)), dtype)


def test_only_what_keeps_one_state_twice_is_left_out():
    left = [c for c in CASES if c not in POSSIBLE]
    # Ranger looks ahead already.
    assert {(c[0], t.name) for c in left for t in c[2] if t.name == "lookahead"} >= {(c[0], "lookahead") for c in left}
    assert {c[0] for c in left} == {"ranger"}


def test_every_optimizer_meets_every_type_and_every_stack_meets_every_form():
    met = {(label(c[0], c[1]), c[3]) for c in POSSIBLE}
    assert met == {(label(name, options), dtype) for name, options in OPTIMIZERS for dtype in DTYPES}
    together = {(label(c[0], c[1]), t) for c in CASES for t in c[2]}
    assert together == {(label(name, options), t) for name, options in OPTIMIZERS for t in TRANSFORMS}
    assert {(c[2], c[3]) for c in POSSIBLE} == {(stack, dtype) for stack in STACKS for dtype in DTYPES}
    assert {(c[2], c[4]) for c in POSSIBLE} == {(stack, form) for stack in STACKS for form in [None, *FORMS]}
    assert {c[4] for c in POSSIBLE if c[3] == torch.bfloat16} == {None, *FORMS}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_climbing_is_descending_the_other_way(dtype):
    hold(make("nadam", {}, maximize=True, decoupled_weight_decay=True, weight_decay=0.1), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_longer_than_a_chunk(dtype):
    stack = (transforms.clip_norm, transforms.cautious)
    shapes = ((16385,), (300, 61), (3, 16390), (2, 2))
    hold(make("adamw", {}, stack), dtype, shapes=shapes, steps=3)
    hold(make("ranger", {}), dtype, shapes=shapes, steps=7)


def test_one_variant_may_need_more_phases_before_the_norm_of_the_model_than_another():
    """Vectors are clipped by their own norm, which is a phase, and matrices by their rows', which is none."""
    stack = (transforms.clip_adaptive, transforms.clip_norm)
    opt = hold(make("sgd", {}, stack), torch.float32, steps=2)
    assert opt.last_grad_norm > 0
