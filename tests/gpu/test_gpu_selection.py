"""Which tensors the GPU's kernels are asked to take, and what is said where they cannot."""

import interpreted
import pytest
import torch

import onepass
from onepass.backends import select


@pytest.fixture(autouse=True)
def says_it_anew(monkeypatch):
    monkeypatch.delenv("ONEPASS_BACKEND", raising=False)
    select._say_once.cache_clear()
    yield
    select._say_once.cache_clear()


def stepped(params, **options):
    opt = onepass.SGD(params, lr=1.0, **options)
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    return opt


@interpreted.never
def test_a_cpu_tensor_is_not_for_the_gpu_and_one_warning_says_so():
    (p,) = params = [torch.nn.Parameter(torch.ones(3))]
    with pytest.warns(UserWarning, match=r"the reference runs, not a compiled kernel: a parameter is on cpu"):
        stepped(params, backend="triton")
    assert torch.equal(p.detach(), torch.zeros(3))


def test_without_triton_the_reference_serves_a_gpus_tensors_and_says_how_to_get_it(monkeypatch):
    # A CPU tensor is called a GPU's: there need be none here.
    monkeypatch.setattr(select, "_backend_of", lambda p: "triton")
    monkeypatch.setattr(select, "missing", lambda name: "triton cannot be imported: pip install onepass[gpu]")
    (p,) = params = [torch.nn.Parameter(torch.ones(3))]
    with pytest.warns(UserWarning, match=r"triton cannot be imported: pip install onepass\[gpu\]"):
        stepped(params)
    # Once: a second warning would be an error.
    stepped(params)
    assert torch.equal(p.detach(), torch.full((3,), -1.0))
    with pytest.raises(RuntimeError, match=r"backend='triton' cannot serve: triton cannot be imported"):
        stepped(params, backend="triton")
    opt = onepass.Adam(params, capturable=True)
    with pytest.raises(RuntimeError, match="capturable=True needs kernels"):
        opt.step()


@interpreted.only
def test_both_kinds_of_kernels_serve_one_optimizer(monkeypatch):
    """Half of the tensors are called a GPU's; the interpreter takes those, Numba's kernels the others."""
    params = [torch.nn.Parameter(torch.ones(n)) for n in (3, 4, 5)]
    on_gpu = {id(params[0]), id(params[2])}
    monkeypatch.setattr(select, "_backend_of", lambda p: "triton" if id(p) in on_gpu else "cpu")

    from onepass.backends.tables import session

    sound = session.obstacle

    def obstacle(p, program, devices):
        # Only the CPU's session leaves what is a GPU's.
        is_gpus = taking[-1] == "triton"
        return "a parameter is elsewhere" if (id(p) in on_gpu) != is_gpus else sound(p, program, devices)

    taking = []
    for name, module in (("cpu", "cpu"), ("triton", "triton")):
        cls = __import__(f"onepass.backends.{module}.session", fromlist=["Session"]).Session
        gather = cls.gather

        def spied(self, works, states, name=name, gather=gather):
            taking.append(name)
            return gather(self, works, states)

        monkeypatch.setattr(cls, "gather", spied)
    monkeypatch.setattr(session, "obstacle", obstacle)
    opt = stepped(params)
    assert taking == ["triton", "cpu"]
    assert all(torch.equal(p.detach(), torch.zeros_like(p)) for p in params)
    assert {float(state["step"]) for state in opt.state.values()} == {1.0}
    # What spans the model is computed in one place.
    select._say_once.cache_clear()
    with pytest.warns(UserWarning, match="a parameter is elsewhere"):
        stepped(params, transforms=[onepass.clip_norm(1.0)])


@interpreted.only
def test_kernels_that_cannot_be_compiled_leave_the_step_to_the_reference(monkeypatch):
    from onepass.backends.tables.cache import CannotCompile
    from onepass.backends.triton.launch import Launch

    def fail(self):
        raise CannotCompile("Triton cannot compile for this")

    monkeypatch.setattr(Launch, "send", fail)
    monkeypatch.setenv("ONEPASS_BACKEND", "triton")
    (p,) = params = [torch.nn.Parameter(torch.ones(3))]
    with pytest.warns(UserWarning, match="Triton cannot compile for this"):
        stepped(params)
    assert torch.equal(p.detach(), torch.zeros(3))
    with pytest.raises(RuntimeError, match="backend='triton' cannot serve: Triton cannot compile for this"):
        stepped(params, backend="triton")
    assert torch.equal(p.detach(), torch.zeros(3))


def test_the_source_of_a_kernel_can_be_shown():
    source = onepass.kernel_source("adamw", backend="triton")
    assert "@triton.jit" in source
    assert source != onepass.kernel_source("adamw")
    with pytest.raises(ValueError, match="backend='cuda' has no kernels; choose cpu or triton"):
        onepass.kernel_source("adamw", backend="cuda")
