"""What only a GPU can show: graphs, streams, no synchronisation, no allocation, several devices, real numbers."""

import math

import interpreted
import pytest
import torch
from parity import parameters

import onepass

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    interpreted.never,
]

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)


def on_gpu(dtype=torch.float32, shapes=((33, 47), (5000,), (), (64, 16)), device="cuda"):
    return [torch.nn.Parameter(p.detach().to(device)) for p in parameters(dtype, shapes)]


def gradients(params, t):
    generator = torch.Generator().manual_seed(t)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_every_rule_agrees_with_the_reference(name, dtype):
    for options in ({}, {"transforms": [onepass.clip_norm(1.0), onepass.centralize()]}, {"skip_nonfinite": True}):
        ours, twins = on_gpu(dtype), on_gpu(dtype)
        fast = onepass.create(name, ours, backend="triton", **options)
        slow = onepass.create(name, twins, backend="reference", **options)
        for t in range(7):
            gradients(ours, t)
            gradients(twins, t)
            fast.step()
            slow.step()
        rtol = 8 * max(torch.finfo(dtype).eps, 1e-6 if dtype != torch.float64 else 1e-13)
        for p, q in zip(ours, twins, strict=True):
            assert torch.allclose(p.double(), q.double(), rtol=rtol, atol=rtol)


def test_kernels_of_the_gpu_serve_without_being_asked_for():
    params = on_gpu()
    opt = onepass.AdamW(params)
    gradients(params, 0)
    opt.step()
    assert type(opt._runner().session).__module__ == "onepass.backends.triton.session"
    assert opt.state[params[0]]["step"].device.type == "cpu"


@pytest.mark.parametrize("options", [{}, {"capturable": True}, {"skip_nonfinite": True}, {"fused": True}], ids=str)
def test_a_step_waits_for_nothing_and_allocates_nothing(options):
    params = on_gpu()
    opt = onepass.AdamW(params, transforms=[onepass.clip_norm(1.0)], **options)
    gradients(params, 0)
    for _ in range(2):
        opt.step()
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            opt.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
    assert opt.last_grad_norm > 0


@pytest.mark.parametrize("name", ["adamw", "radam", "nadam"])
def test_a_graph_replays_steps(name):
    params, twins = on_gpu(), on_gpu()
    lr = torch.tensor(0.01, device="cuda")
    opt = onepass.create(name, params, lr=lr, capturable=True, transforms=[onepass.lookahead(k=3)])
    plain = onepass.create(name, twins, lr=0.01, transforms=[onepass.lookahead(k=3)])
    gradients(params, 0)
    gradients(twins, 0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        opt.step()
    torch.cuda.current_stream().wait_stream(stream)
    plain.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.step()
    for t in range(1, 12):
        for p, q in zip(params, twins, strict=True):
            g = torch.randn(p.shape, generator=torch.Generator().manual_seed(t)).to("cuda")
            p.grad.copy_(g)
            q.grad = g
        if t == 6:
            lr.fill_(0.001)
            plain.param_groups[0]["lr"] = 0.001
        graph.replay()
        plain.step()
    for p, q in zip(params, twins, strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)
        assert opt.state[p]["step"].item() == plain.state[q]["step"].item() == 12


def test_steps_run_on_the_current_stream():
    params = on_gpu(shapes=[(2**22,)])
    opt = onepass.SGD(params, lr=1.0)
    start = params[0].detach().clone()
    stream = torch.cuda.Stream()
    for t in range(4):
        with torch.cuda.stream(stream if t % 2 else torch.cuda.current_stream()):
            torch.cuda._sleep(10_000_000)
            params[0].grad = torch.full_like(params[0], 1.0)
            opt.step()
        stream.wait_stream(torch.cuda.current_stream())
        torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(params[0].detach(), start - 1.0 - 1.0 - 1.0 - 1.0)


def test_torchs_scaler_with_overflows():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1).cuda()
    opt = onepass.AdamW(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cuda", init_scale=256.0)
    for t in range(6):
        opt.zero_grad()
        loss = model(torch.randn(8, 4, device="cuda")).square().mean() * (math.inf if t == 2 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
    assert opt.state[model.weight]["step"].item() == 5


def test_parameters_on_the_cpu_and_on_the_gpu_in_one_optimizer():
    for stack in ([], [onepass.clip_norm(1.0)]):
        params = [*on_gpu(shapes=[(40,)]), *parameters(torch.float32, [(30,)])]
        twins = [torch.nn.Parameter(p.detach().cpu().double()) for p in params]
        opt, other = (
            onepass.AdamW(params, transforms=stack),
            onepass.AdamW(twins, transforms=stack, backend="reference"),
        )
        for t in range(3):
            gradients(params, t)
            for p, q in zip(params, twins, strict=True):
                q.grad = p.grad.cpu().double()
            opt.step()
            other.step()
        assert all(torch.allclose(p.cpu().double(), q, rtol=1e-5) for p, q in zip(params, twins, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_in_one_optimizer():
    params = [*on_gpu(device="cuda:0"), *on_gpu(device="cuda:1")]
    twins = [torch.nn.Parameter(p.detach().cpu().double()) for p in params]
    stack = [onepass.clip_norm(1.0)]
    opt, other = onepass.AdamW(params, transforms=stack), onepass.AdamW(twins, transforms=stack, backend="reference")
    for t in range(3):
        gradients(params, t)
        for p, q in zip(params, twins, strict=True):
            q.grad = p.grad.cpu().double()
        opt.step()
        other.step()
    assert all(torch.allclose(p.cpu().double(), q, rtol=1e-5) for p, q in zip(params, twins, strict=True))
