"""Many tensors, random shapes, and tensors too large to exist."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import hold, parameters

import onepass
from onepass.backends.cpu.bucket import Bucket
from onepass.backends.tables.bucket import FIRST_ADDRESS, LONG_CHUNK

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)


def adamw(params, backend):
    return onepass.AdamW(params, backend=backend)


def ranger(params, backend):
    """Rows, phases, and variants that depend on dimensions and on the step."""
    stack = [onepass.clip_norm(1.0), onepass.cautious()]
    return onepass.Ranger(params, k=2, backend=backend, transforms=stack)


def test_a_thousand_tensors_of_random_shapes():
    generator = torch.Generator().manual_seed(0)
    shapes = []
    for _ in range(1000):
        ndim = int(torch.randint(0, 4, (), generator=generator))
        shapes.append(tuple(torch.randint(0, 9, (ndim,), generator=generator).tolist()))
    params = parameters(torch.float32, shapes)
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    fast, slow = adamw(params, "cpu"), adamw(twins, "reference")
    for t in range(4):
        for i, (p, q) in enumerate(zip(params, twins, strict=True)):
            g = torch.randn(p.shape, generator=generator)
            p.grad, q.grad = (None, None) if (i + t) % 7 == 0 else (g, g.clone())
        fast.step()
        slow.step()
    for p, q in zip(params, twins, strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)
        assert fast.state[p]["step"] == slow.state[q]["step"]


shapes = st.lists(st.lists(st.integers(0, 40), max_size=3).map(tuple), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes=shapes, dtype=st.sampled_from(DTYPES), gaps=st.lists(st.booleans(), min_size=18, max_size=18))
def test_any_shapes_and_any_gaps(shapes, dtype, gaps):
    # A reduction over nothing is NaN by definition; what has no elements is not compared.
    calls = iter(gaps)

    def gradient(p, generator, t):
        return torch.randn(p.shape, generator=generator).to(dtype) if next(calls) else None

    hold(adamw, dtype, shapes=shapes, steps=3, gradient=gradient)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(shapes=shapes, dtype=st.sampled_from((torch.float32, torch.bfloat16)))
def test_any_shapes_through_rows_and_phases(shapes, dtype):
    params = parameters(dtype, shapes)
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    fast, slow = ranger(params, "cpu"), ranger(twins, "reference")
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for p, q in zip(params, twins, strict=True):
            p.grad = torch.randn(p.shape, generator=generator).to(dtype)
            q.grad = p.grad.clone()
        fast.step()
        slow.step()
    for p, q in zip(params, twins, strict=True):
        assert torch.allclose(p.double(), q.double(), rtol=1e-4 if dtype == torch.float32 else 2e-2, atol=1e-5)


def by_rows(params, backend):
    return onepass.SGD(params, momentum=0.9, backend=backend, transforms=[onepass.centralize()])


@pytest.mark.parametrize("start", [2**31 + 8, 2**33 + 8, 2**40 + 8], ids=["2^31", "2^33", "2^40"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("make", [adamw, by_rows], ids=["elements", "rows"])
def test_elements_beyond_two_to_the_31(make, dtype, start):
    """The chunk table points far into a tensor whose address is so low that the far elements lie in a small buffer."""
    (far,), (near,) = parameters(dtype, [(6, 8)]), parameters(dtype, [(6, 8)])
    opt, plain = make([far], "cpu"), make([near], "cpu")
    generator = torch.Generator().manual_seed(0)
    for t in range(4):
        far.grad = torch.randn(far.shape, generator=generator).to(dtype)
        near.grad = far.grad.clone()
        plain.step()
        session, works = opt._runner(), [opt._work(group) for group in opt.param_groups]
        session = session.session
        with torch.no_grad():
            session.gather(works, opt.state)
            (bucket,) = session.plan.buckets
            shift = start * far.element_size()
            # The gradient's address is entered anew by each gather; what else is there stays from the first step.
            columns = slice(FIRST_ADDRESS, None) if t == 0 else FIRST_ADDRESS + 1
            bucket.table[:, columns] -= shift
            if t == 0:
                bucket.chunks[:, 1] += start
            assert bucket.chunks[:, 1].min() >= 2**31
            session.run(works)
    assert torch.equal(far, near)
    assert torch.equal(opt.state[far]["step"], plain.state[near]["step"])
    for key, value in plain.state[near].items():
        assert torch.equal(opt.state[far][key], value)


@pytest.mark.parametrize("shape", [(2**31 + 5,), (2**16, 2**16 + 3), (3, 2**31)], ids=str)
@pytest.mark.parametrize("make", [adamw, by_rows], ids=["elements", "rows"])
def test_the_chunks_of_a_tensor_beyond_two_to_the_31(make, shape):
    p = torch.empty(shape, device="meta")
    program = make([torch.nn.Parameter(torch.ones(2, 2))], "cpu").program({**make([p], "cpu").param_groups[0]})
    like = SimpleNamespace(params=[p], ndim=p.ndim, program=program, counts=torch.tensor([p.numel()]).numpy())
    like.chunk, like.long_chunk = Bucket.chunk, Bucket.long_chunk
    chunks = Bucket._cut(like)
    assert chunks.dtype == "int64"
    starts, counts = chunks[:, 1], chunks[:, 2]
    assert starts[0] == 0
    assert (starts[1:] == starts[:-1] + counts[:-1]).all()
    assert starts[-1] + counts[-1] == p.numel() > 2**31
    row = p[:1].numel() if make is by_rows and p.ndim > 1 else 1
    assert (counts % row == 0).all()
    assert counts.max() <= max(LONG_CHUNK, row)
