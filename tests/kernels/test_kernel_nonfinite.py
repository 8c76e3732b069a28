"""NaN, infinities and denormal numbers: what the reference makes of them, the kernels make of them."""

import math

import pytest
import torch
from parity import FAST

import onepass

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
FLAGS = {"sgd": {"momentum": 0.9}, "rmsprop": {"centered": True, "momentum": 0.5}, "adam": {"amsgrad": True}}


def special(dtype):
    info = torch.finfo(dtype)
    least = info.tiny * info.eps
    return torch.tensor(
        [math.nan, math.inf, -math.inf, least, -least, info.tiny, info.tiny / 2, 0.0, -0.0, info.max, info.min]
        # Longer than a vector, so that the loop's body and its rest both meet every one.
        + [1.0, -1.0] * 11,
        dtype=torch.float64,
    ).to(dtype)


def twins(name, dtype, **options):
    start = torch.linspace(-2, 2, len(special(dtype))).to(dtype)
    result = []
    for backend in (FAST, "reference"):
        p = torch.nn.Parameter(start.clone())
        result.append((p, onepass.create(name, [p], backend=backend, **options)))
    return result


def alike(a, b, dtype):
    """Equal, with NaN where NaN; or so near that only the roundings of float32 or float64 can have parted them."""
    unit = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    rtol = max(torch.finfo(dtype).eps, 32 * unit)
    return torch.allclose(a.double(), b.double(), rtol=rtol, atol=float(torch.finfo(dtype).tiny), equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_special_gradients(name, dtype):
    options = FLAGS.get(name, {})
    (p, fast), (q, slow) = twins(name, dtype, **options)
    for t in range(7):
        g = special(dtype) if t in (1, 4) else torch.full_like(p, 0.5)
        if name == "rmsprop":
            # v - m * m where both overflow: NaN, except where the product is contracted and never rounded to infinity.
            g[g.abs() == torch.finfo(dtype).max] = 1.0
        p.grad, q.grad = g.clone(), g.clone()
        fast.step()
        slow.step()
        assert torch.equal(p.isnan(), q.isnan()), f"step {t}"
        assert torch.equal(p.isinf(), q.isinf()), f"step {t}"
        assert alike(p.detach(), q.detach(), dtype), f"step {t}"
        for key, value in fast.state[p].items():
            assert alike(value, slow.state[q][key], dtype), f"step {t}, {key}"


TRANSFORMS = {
    "clip_value": [onepass.clip_value(0.5)],
    "clip_norm": [onepass.clip_norm(1.0)],
    "clip_adaptive": [onepass.clip_adaptive()],
    "cautious": [onepass.cautious()],
    "cautious_mask": [onepass.cautious_mask()],
    "lookahead": [onepass.lookahead(k=2)],
    "average": [onepass.average(0.5)],
}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_treat_what_is_not_finite_as_the_reference_does(name, bad):
    (p, fast), (q, slow) = twins("sgd", torch.float32, lr=0.1, transforms=TRANSFORMS[name])
    for t in range(3):
        g = torch.full_like(p, 0.3)
        if t == 1:
            g[3] = bad
        p.grad, q.grad = g.clone(), g.clone()
        fast.step()
        slow.step()
        assert alike(p.detach(), q.detach(), torch.float32), f"step {t}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_denormal_numbers_are_not_flushed(dtype):
    info = torch.finfo(dtype)
    least = info.tiny * info.eps
    gradient = torch.tensor([least, -least, 3 * least, info.tiny / 2] * 8, dtype=torch.float64)
    p = torch.nn.Parameter(torch.zeros(32, dtype=dtype))
    opt = onepass.SGD([p], lr=1.0, momentum=0.5)
    p.grad = gradient.to(dtype)
    opt.step()
    assert torch.equal(p.detach().double(), -gradient)
    assert torch.equal(opt.state[p]["momentum_buffer"].double(), gradient)
    assert (p != 0).all()


@pytest.mark.parametrize(
    ("dtype", "value", "stored"),
    [
        # Half-way cases go to the even neighbour, as IEEE 754 and torch have it.
        (torch.bfloat16, 1 + 2**-8, 1.0),
        (torch.bfloat16, 1 + 3 * 2**-8, 1 + 2**-6),
        (torch.bfloat16, 1 + 2**-8 + 2**-20, 1 + 2**-7),
        (torch.bfloat16, 3.39e38, 3.3895313892515355e38),
        (torch.bfloat16, 3.4e38, math.inf),
        (torch.float16, 1 + 2**-11, 1.0),
        (torch.float16, 1 + 3 * 2**-11, 1 + 2**-9),
        (torch.float16, 65519.0, 65504.0),
        (torch.float16, 65520.0, math.inf),
        (torch.float16, 2**-25 * 1.001, 2**-24),
    ],
)
def test_storage_rounds_to_the_nearest_and_ties_to_even(dtype, value, stored):
    """The learning rate is the value: the parameter is 0 and the gradient -1, so that the step is exactly it."""
    p = torch.nn.Parameter(torch.zeros(20, dtype=dtype))
    opt = onepass.SGD([p], lr=value)
    p.grad = -torch.ones_like(p)
    opt.step()
    assert (p == stored).all(), p[0].item()
    assert torch.tensor(value, dtype=torch.float32).to(dtype).item() == stored
