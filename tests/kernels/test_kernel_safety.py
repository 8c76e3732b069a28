"""Threads, forks, worker processes and autograd."""

import threading

import pytest
import scripts
import torch

import onepass
from onepass.backends.cpu import session, threads

STACK = [onepass.clip_norm(1.0), onepass.cautious()]
SHAPES = ((300, 400), (70,), (9, 5000))


def model(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def walk(params, opt, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        opt.step()


@pytest.fixture
def two_threads():
    """As many as the tests' machine has at the least, whatever the runner of the tests has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_two_python_threads_step_two_optimizers_at_once(two_threads):
    assert sum(p.numel() for p in model()) > session.ALONE
    alone = [model(seed) for seed in (0, 1)]
    for seed, params in enumerate(alone):
        walk(params, onepass.AdamW(params, transforms=STACK), 60, seed)
    together = [model(seed) for seed in (0, 1)]
    optimizers = [onepass.AdamW(params, transforms=STACK) for params in together]
    workers = [
        threading.Thread(target=walk, args=(params, opt, 60, seed))
        for seed, (params, opt) in enumerate(zip(together, optimizers, strict=True))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(one, other, strict=True))


def test_the_number_of_threads_changes_no_bit(two_threads):
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        params = model()
        walk(params, onepass.Ranger(params, k=3, transforms=STACK), 7)
        results.append(params)
    assert all(torch.equal(p, q) for p, q in zip(*results, strict=True))


def test_the_number_of_threads_is_obeyed_and_small_steps_take_one(two_threads, monkeypatch):
    counts = []

    def spy(function, job, count):
        counts.append(count)
        run(function, job, count)

    run = threads.run
    monkeypatch.setattr(threads, "run", spy)
    params = model()
    opt = onepass.SGD(params)
    walk(params, opt, 1)
    torch.set_num_threads(1)
    walk(params, opt, 1)
    small = [torch.nn.Parameter(torch.ones(8))]
    torch.set_num_threads(2)
    walk(small, onepass.SGD(small), 1)
    assert counts == [2, 1, 1]


FORK = """
import onepass
params = model()
opt = onepass.AdamW(params, transforms=[onepass.clip_norm(1.0)])
walk(params, opt)
read, write = os.pipe()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    child = os.fork()
walk(params, opt, seed=2)
if child == 0:
    os.write(write, digest(params).encode())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(digest(params))
print(os.read(read, 1000).decode())
"""


def test_both_sides_of_a_fork_go_on_stepping():
    parent, child = scripts.run(FORK, timeout=60)
    assert parent == child


WORKERS = """
import onepass
from torch.utils.data import DataLoader, Dataset

class Steps(Dataset):
    # Each worker is a fork; it trains a model of its own, as a data set that distils its examples would.
    def __len__(self):
        return 4
    def __getitem__(self, i):
        params = model(i)
        walk(params, onepass.AdamW(params), 4, seed=i)
        return sum(p.detach().double().sum() for p in params)

def train(workers):
    params = model()
    opt = onepass.AdamW(params)
    seen = []
    for _ in range(2):
        for batch in DataLoader(Steps(), batch_size=2, num_workers=workers):
            walk(params, opt, 2)
            seen += batch.tolist()
    return digest(params), seen

warnings.simplefilter("ignore")
alone = train(0)
print(alone == train(2))
"""


def test_data_loader_workers_run_beside_the_steps_and_may_step_themselves():
    assert scripts.run(WORKERS, timeout=90) == ["True"]


POOLS = """
import onepass
from onepass.backends.cpu import threads
if {numba}:
    threads._gomp_parallel = lambda: None
params = model()
walk(params, onepass.AdamW(params, transforms=[onepass.clip_norm(1.0)]))
print(threads.pool())
print(digest(params))
"""


def test_numbas_pool_gives_the_same_bits():
    one, other = (scripts.run(POOLS.format(numba=numba), timeout=120) for numba in (False, True))
    assert other[0] == "Numba's pool"
    assert one[1] == other[1]
    if one[0] == other[0]:
        pytest.skip("torch brings no OpenMP pool here, so that there is but one")


def test_autograd_is_told_of_what_is_written_and_of_nothing_else():
    w, idle = torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.ones(3))
    opt = onepass.AdamW([w, idle], transforms=[onepass.lookahead(k=2)])
    for _ in range(3):
        # A graph that keeps w for the gradient of its input.
        x = torch.randn(2, 4, requires_grad=True)
        y = (x @ w).sum()
        y.backward(retain_graph=True)
        versions = w._version, idle._version, w.grad._version
        opt.step()
        assert w._version > versions[0]
        assert (idle._version, w.grad._version) == versions[1:]
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()
        w.grad = None


def test_a_step_inside_no_grad_inference_and_grad_mode():
    (p,) = parameters = [torch.nn.Parameter(torch.ones(3))]
    opt = onepass.SGD(parameters, lr=1.0)
    p.grad = torch.ones(3)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            opt.step()
    assert torch.equal(p.detach(), torch.full((3,), -1.0))
    assert p.requires_grad
    assert p.grad_fn is None
