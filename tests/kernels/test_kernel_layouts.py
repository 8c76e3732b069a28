"""Wherever the elements of a parameter and of its gradient lie, each is updated once and nothing beside it is."""

import warnings

import pytest
import torch
from parity import FAST, hold

import onepass
from onepass.backends import select
from onepass.backends.tables import strangers
from onepass.backends.tables.bucket import CHUNK

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
SIZES = (0, 1, 2, 3, 15, 16, 17, 31, 33, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5)


def adamw(params, backend):
    return onepass.AdamW(params, backend=backend)


def normed(params, backend):
    return onepass.AdamW(params, backend=backend, transforms=[onepass.clip_norm(1.0)])


def by_rows(params, backend):
    return onepass.SGD(params, momentum=0.9, backend=backend, transforms=[onepass.centralize()])


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def expects_a_warning():
    """The reference says only once that it runs; each test that asks for it hears it."""
    select._say_once.cache_clear()
    yield
    select._say_once.cache_clear()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_size_around_the_vectors_and_the_chunks(dtype):
    hold(adamw, dtype, shapes=[(n,) for n in SIZES], steps=2)
    hold(normed, dtype, shapes=[(n,) for n in SIZES], steps=1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_every_length(dtype):
    hold(
        by_rows, dtype, shapes=[(3, n) for n in (*SIZES[:9], CHUNK + 1)] + [(CHUNK + 1, 1), (0, 4), (1, 1, 1)], steps=2
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("make", [adamw, by_rows], ids=["elements", "rows"])
def test_memory_formats(make, dtype):
    tensors = [
        numbers(4, 3, 5, 2, dtype=dtype),
        numbers(4, 3, 5, 2, dtype=dtype).to(memory_format=torch.channels_last),
        numbers(2, 3, 2, 3, 2, dtype=dtype).to(memory_format=torch.channels_last_3d),
        numbers(1, 6, dtype=dtype).t().contiguous().t(),
    ]
    if make is adamw:
        # Rows of these are no blocks of memory.
        tensors += [numbers(6, 5, dtype=dtype).t(), numbers(2, 3, 4, dtype=dtype).permute(2, 0, 1)]
    hold(make, dtype, params=[torch.nn.Parameter(t) for t in tensors], steps=3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_view_at_an_odd_element_touches_nothing_around_it(dtype):
    base = numbers(3 * 41, dtype=dtype)
    kept = base.clone()
    params = [torch.nn.Parameter(base[i + 3 : i + 36]) for i in (0, 41, 82)]
    hold(adamw, dtype, params=params, steps=3)
    touched = torch.zeros(len(base), dtype=torch.bool)
    for i in (0, 41, 82):
        touched[i + 3 : i + 36] = True
    assert torch.equal(base[~touched], kept[~touched])
    assert not torch.equal(base[touched], kept[touched])


GRADIENTS = {
    "transposed": lambda g: g.t().contiguous().t(),
    "expanded from one row": lambda g: g[:1].clone().expand_as(g),
    "expanded from one number": lambda g: g.sum().expand_as(g),
    "every other element": lambda g: torch.stack([g, g + 1], -1)[..., 0],
    "at an odd offset": lambda g: torch.cat([g.new_zeros(1), g.flatten()])[1:].view_as(g),
    "negated lazily": lambda g: torch._neg_view(g),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.parametrize("make", [adamw, by_rows], ids=["elements", "rows"])
def test_gradients_in_another_layout(make, kind, dtype):
    if make is by_rows and kind == "expanded from one number":
        pytest.skip("a row of equal numbers less its mean is rounding and nothing else")

    def gradient(p, generator, t):
        g = GRADIENTS[kind](torch.randn(p.shape, generator=generator).to(dtype))
        # Every step brings another kind, so that what was noted of the last one must not be believed.
        return g if t % 2 else g.contiguous()

    opt = hold(make, dtype, shapes=((7, 5), (40, 3)), steps=4, gradient=gradient)
    assert opt._runner().session.why() == []


@pytest.mark.parametrize("stack", [[], [onepass.clip_norm(1.0)], [onepass.centralize()]], ids=str)
def test_gradients_in_another_layout_that_are_copied_piece_by_piece(stack, monkeypatch):
    """Longer than what is copied at a time, among others that are not copied; two of them in one optimizer."""
    at_once = strangers.BORROWED if FAST == "cpu" else 2**12
    monkeypatch.setattr(strangers, "BORROWED", at_once)
    shapes = ((at_once // 512 + 7, 700), (60, 40), (30, at_once // 20))
    params = [torch.nn.Parameter(numbers(*shape)) for shape in shapes]
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    opt, other = (onepass.SGD(ps, lr=0.1, momentum=0.9, transforms=stack) for ps in (params, twins))
    for step in range(2):
        for i, (p, q, shape) in enumerate(zip(params, twins, shapes, strict=True)):
            q.grad = numbers(*shape, seed=step)
            p.grad = q.grad.clone() if i == 1 else q.grad.t().contiguous().t()
        opt.step()
        other.step()
        # Only the order in which the norm is summed may differ.
        assert all(
            torch.allclose(p, q, rtol=0 if not stack else 1e-5, atol=1e-7) for p, q in zip(params, twins, strict=True)
        )


def test_a_gradient_in_another_layout_is_left_as_it_is():
    p = torch.nn.Parameter(numbers(6, 4))
    opt = onepass.AdamW([p])
    p.grad = numbers(4, 6, seed=1).t()
    before, version, address = p.grad.clone(), p.grad._version, p.grad.data_ptr()
    opt.step()
    assert torch.equal(p.grad, before)
    assert (p.grad._version, p.grad.data_ptr()) == (version, address)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (numbers(4, 6)[:, :3], r"shape \(4, 3\) and strides \(6, 1\) has holes or overlaps"),
        (numbers(8)[::2], r"strides \(2,\) has holes or overlaps"),
    ],
    ids=["columns", "every other element"],
)
def test_a_parameter_with_holes_is_for_the_reference_and_one_warning_says_why(tensor, reason, expects_a_warning):
    dense = torch.nn.Parameter(numbers(5))
    holes = tensor.detach().requires_grad_()
    opt = onepass.SGD([holes, dense], lr=0.5)
    before = holes.detach().clone()
    holes.grad, dense.grad = torch.ones(tensor.shape), torch.ones(5)
    with pytest.warns(UserWarning, match=reason) as caught:
        opt.step()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.step()
    assert torch.equal(dense, numbers(5) - 0.5 - 0.5)
    assert torch.allclose(holes, before - 2 * 0.5 * holes.grad)


def test_rows_that_are_no_blocks_of_memory_are_for_the_reference(expects_a_warning):
    p = torch.nn.Parameter(numbers(5, 4).t())
    twin = torch.nn.Parameter(p.detach().clone(memory_format=torch.contiguous_format))
    opt, other = by_rows([p], FAST), by_rows([twin], FAST)
    p.grad = numbers(4, 5, seed=1)
    twin.grad = p.grad.clone()
    with pytest.warns(UserWarning, match="rows that are no blocks of memory"):
        opt.step()
    other.step()
    assert torch.allclose(p, twin, rtol=1e-6)


def test_what_is_no_plain_tensor_is_for_the_reference(expects_a_warning):
    class Marked(torch.Tensor):
        pass

    p = numbers(3).as_subclass(Marked).requires_grad_()
    opt = onepass.SGD([p], lr=1.0)
    p.grad = torch.ones(3)
    with pytest.warns(UserWarning, match="Marked"):
        opt.step()
    assert torch.equal(p.detach().as_subclass(torch.Tensor), numbers(3) - 1)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_parameters_are_pairs_of_reals(dtype):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, 3, generator=generator, dtype=dtype)
    whole = torch.nn.Parameter(start.clone())
    pairs = torch.nn.Parameter(torch.view_as_real(start).clone())
    opt, other = onepass.AdamW([whole]), onepass.AdamW([pairs])
    for step in range(4):
        g = torch.randn(5, 3, generator=generator, dtype=dtype)
        # A conjugate view is a flag on the tensor: its memory holds the other sign.
        whole.grad = g.conj() if step % 2 else g
        pairs.grad = torch.view_as_real(whole.grad.resolve_conj()).clone()
        opt.step()
        other.step()
    assert torch.equal(torch.view_as_real(whole.detach()), pairs.detach())
