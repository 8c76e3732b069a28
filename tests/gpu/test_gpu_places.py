"""Wherever tensors lie and however long they are: far elements, odd addresses, blocks, chunks and tiles."""

import interpreted
import pytest
import torch
from parity import hold, parameters

import onepass

pytestmark = interpreted.only

if interpreted.INTERPRETED:
    from onepass.backends.triton import bucket


def gradients(params, t):
    generator = torch.Generator().manual_seed(t)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def far_away(opt, start, columns, p):
    """Let the chunk table point far into a tensor whose address is so low that those elements are the parameter's."""
    session, works = opt._runner().session, [opt._work(group) for group in opt.param_groups]
    with torch.no_grad():
        session.gather(works, opt.state)
        (b,) = session.plan.buckets
        b.table[:, columns] -= start * p.element_size()
        if isinstance(columns, slice):
            b.chunks[:, 1] += start
        assert b.chunks[:, 1].min() >= 2**31
        session.run(works)


@pytest.mark.parametrize("start", [2**31 + 16, 2**40 + 16], ids=["2^31", "2^40"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("by_rows", [False, True], ids=["elements", "rows"])
def test_elements_beyond_two_to_the_31(by_rows, dtype, start):
    stack = [onepass.centralize()] if by_rows else []
    (far,), (near,) = parameters(dtype, [(6, 8)]), parameters(dtype, [(6, 8)])
    make = lambda p: onepass.SGD([p], momentum=0.9, transforms=stack, backend="triton")  # noqa: E731
    opt, plain = make(far), make(near)
    for t in range(3):
        gradients([far, near], t)
        near.grad = far.grad.clone()
        plain.step()
        first = slice(bucket.bucket.FIRST_ADDRESS, None)
        far_away(opt, start, first if t == 0 else bucket.bucket.FIRST_ADDRESS + 1, far)
    assert torch.equal(far, near)


def test_unaligned_tensors_have_a_bucket_of_their_own_and_touch_nothing_around_them():
    base = torch.randn(300)
    kept = base.clone()
    params = [torch.nn.Parameter(base[3:103]), torch.nn.Parameter(torch.randn(100))]
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    opt, other = onepass.AdamW(params, backend="triton"), onepass.AdamW(twins, backend="reference")
    for t in range(3):
        gradients(params, t)
        gradients(twins, t)
        opt.step()
        other.step()
    aligned = {b.usual[next(iter(b.usual))].align for b in opt._runner().session.plan.buckets}
    assert aligned == {1, 16}
    assert torch.equal(base[:3], kept[:3])
    assert torch.equal(base[103:], kept[103:])
    assert all(torch.allclose(p, q, rtol=1e-5, atol=1e-7) for p, q in zip(params, twins, strict=True))


def test_every_step_adds_up_in_the_same_order():
    results = []
    for _ in range(2):
        params = parameters(torch.float32, [(5000,), (70, 90), ()])
        opt = onepass.AdamW(params, backend="triton", transforms=[onepass.clip_norm(1.0)])
        for t in range(2):
            gradients(params, t)
            opt.step()
        results.append(params)
    assert all(torch.equal(p, q) for p, q in zip(*results, strict=True))


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1023, 1024, 1025, 4095, 4096, 4097, 2 * 4096 + 5])
def test_every_size_around_the_blocks_and_the_chunks(n):
    hold(lambda ps, b: onepass.AdamW(ps, backend=b), torch.float32, shapes=[(n,)], steps=1)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 127, 128, 129, 1024, 1025])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_around_the_tiles(n, dtype):
    make = lambda ps, b: onepass.SGD(ps, momentum=0.9, backend=b, transforms=[onepass.centralize()])  # noqa: E731
    hold(make, dtype, shapes=[(5, n), (70, n)], steps=1)
