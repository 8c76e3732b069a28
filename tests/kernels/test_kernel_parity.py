"""Every rule, with every transform, in every storage type: the kernels against the reference."""

import inspect

import pytest
import torch
from parity import FAST, SHAPES, hold

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

# Those that a user may give and that need nothing said, in their registry's order.
TRANSFORMS = [getattr(transforms, name) for name in transforms.__all__]
TRANSFORMS = [
    t
    for t in TRANSFORMS
    if isinstance(t, Transform)
    and t.name not in ("maximize", "heavy_ball")
    and inspect.Parameter.empty not in t.hyperparameters.values()
]
SINGLE = [(t,) for t in TRANSFORMS]
TOGETHER = [tuple(TRANSFORMS[::2]), tuple(TRANSFORMS[1::2])]
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


def label(name, options, stack=(), dtype=None, form=None):
    parts = [name, *(f"{key}={value}" for key, value in options.items()), *(t.name for t in stack)]
    parts += [form.name] if form else []
    return "-".join([*parts, *([str(dtype).removeprefix("torch.")] if dtype else [])])


def stacks_for(i, options, is_own):
    """None, all in two stacks, and some alone: three for an optimizer as it comes, one for its flags and for own rules.

    All pairs would compile for minutes; as it is, every optimizer meets every transform, and every transform is alone
    with several optimizers.
    """
    count = 1 if options or is_own else 3
    alone = [SINGLE[(i + j * len(SINGLE) // count) % len(SINGLE)] for j in range(count)]
    return [(), *TOGETHER, *alone]


def without_conflicts(name, stack):
    """Ranger looks ahead already, and cannot keep a second set of slow weights under the same key."""
    return tuple(t for t in stack if (name, t.name) != ("ranger", "lookahead"))


# Types and forms of decay go round, so that each optimizer meets every type, and each transform every type and form.
CASES = [
    (
        name,
        options,
        without_conflicts(name, stack),
        DTYPES[(i + j) % len(DTYPES)],
        [None, *FORMS][(i + j // len(DTYPES)) % (1 + len(FORMS))],
    )
    for i, (name, options) in enumerate(OPTIMIZERS)
    for j, stack in enumerate(stacks_for(i, options, name in CLASSES))
]


@pytest.mark.parametrize("case", CASES, ids=[label(*c) for c in CASES])
def test_kernels_do_what_the_reference_does(case):
    name, options, stack, dtype, form = case
    hold(make(name, options, stack, form and form(weight_decay=0.1)), dtype)


def test_all_pairs_are_met():
    met = {(label(c[0], c[1]), c[3]) for c in CASES}
    assert met == {(label(name, options), dtype) for name, options in OPTIMIZERS for dtype in DTYPES}
    together = {(label(c[0], c[1]), t) for c in CASES for t in c[2]}
    missing = {(label(name, options), t) for name, options in OPTIMIZERS for t in TRANSFORMS} - together
    assert {(name, t.name) for name, t in missing} == {("ranger", "lookahead")}
    assert {(t, c[3]) for c in CASES for t in c[2]} == {(t, dtype) for t in TRANSFORMS for dtype in DTYPES}
    assert {(t, c[4]) for c in CASES for t in c[2]} == {(t, form) for t in TRANSFORMS for form in [None, *FORMS]}
    assert {(c[3], c[4]) for c in CASES} == {(dtype, form) for dtype in DTYPES for form in [None, *FORMS]}
    assert {c[2] for c in CASES} >= set(STACKS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_climbing_is_descending_the_other_way(dtype):
    hold(make("nadam", {}, maximize=True, decoupled_weight_decay=True, weight_decay=0.1), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_longer_than_a_chunk(dtype):
    stack = (transforms.clip_norm, transforms.cautious)
    shapes = ((16385,), (300, 61), (3, 16390), (2, 2)) if FAST == "cpu" else ((4097,), (70, 61), (3, 4100), (2, 2))
    hold(make("adamw", {}, stack), dtype, shapes=shapes, steps=3 if FAST == "cpu" else 1)
    hold(make("ranger", {}), dtype, shapes=shapes, steps=7 if FAST == "cpu" else 1)


def test_one_variant_may_need_more_phases_before_the_norm_of_the_model_than_another():
    """Vectors are clipped by their own norm, which is a phase, and matrices by their rows', which is none."""
    stack = (transforms.clip_adaptive, transforms.clip_norm)
    opt = hold(make("sgd", {}, stack), torch.float32, steps=2)
    assert opt.last_grad_norm > 0


@pytest.mark.parametrize("shared", [True, False], ids=["one optimizer", "one variant"])
def test_what_spans_the_model_may_stand_in_different_phases_of_different_variants(shared):
    """Matrices count what is not finite in the phase of the norm, vectors in the one before it."""
    stack = (transforms.clip_adaptive, transforms.clip_norm)
    opt = hold(
        make("sgd", {}, stack, skip_nonfinite=True), torch.float32, steps=2, shapes=SHAPES if shared else SHAPES[:1]
    )
    assert opt.skipped_steps == 0
