"""Runs that are killed while they save: what is left is a whole checkpoint, from which the run goes on bit for bit."""

import json
import subprocess
import sys

import pytest
import torch

from onepass.study import checkpoint as checkpoints
from onepass.study.errors import StudyError

EPOCHS = 30
KILLS = 8

# Wide enough for saving to take a good part of an epoch; with dropout and shuffling, which a resumed run must repeat.
TASK = """
import torch
from torch import nn
from onepass.study.task import ACCURACY, Arrays, Task

def make():
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    data = Arrays(x, (x[:, 0] > 0).long())
    model = lambda: nn.Sequential(nn.Linear(16, 3000), nn.Dropout(0.3), nn.ReLU(), nn.Linear(3000, 2))
    return Task("wide", model, data, data, data, nn.functional.cross_entropy, ACCURACY, batch_size=16, epochs=1)
"""

# A process that has imported everything, and forks a run that is killed from outside, or that kills itself at a point
# in the middle of saving; as often as it is told to, one line of JSON each time.
NURSERY = """
import json, os, pathlib, signal, sys, time, types
import torch
import onepass.cli, numba, torch._dynamo
import onepass.study.checkpoint as checkpoints
import onepass.backends.cpu.compile
from onepass.__main__ import main

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def after(calls, function, doomed):
    "The function, and from the given call on another."
    count = 0
    def call(*arguments, **named):
        nonlocal count
        count += 1
        return (doomed if count >= calls else function)(*arguments, **named)
    return call

def half(state, file):
    import io
    buffer = io.BytesIO()
    save(state, buffer)
    file.write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    file.flush()
    die()

def replaced(self, target):
    replace(self, target)
    die()

save, replace = torch.save, pathlib.Path.replace
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr
        point, calls = job.get("point"), job.get("calls", 1)
        if point == "in the middle of the file":
            torch.save = after(calls, save, half)
        elif point == "before the file is safe":
            os.fsync = after(calls, os.fsync, die)
        elif point == "before it takes its place":
            pathlib.Path.replace = after(calls, replace, die)
        elif point == "once it has taken its place":
            pathlib.Path.replace = after(calls, replace, replaced)
        os._exit(main(job["line"].split()))
    if "seconds" in job:
        path, deadline = pathlib.Path(job["path"]), time.monotonic() + 60
        written = path.stat().st_mtime_ns if path.exists() else 0
        while (path.stat().st_mtime_ns if path.exists() else 0) == written and time.monotonic() < deadline:
            time.sleep(1e-4)
        time.sleep(job["seconds"])
        os.kill(child, signal.SIGKILL)
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
"""


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    """Runs ``onepass ...`` in a process of its own, kills it where it is told to, and gives its exit code."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "task.py").write_text(TASK)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", NURSERY], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip

        def run(name, resume=False, **job):
            line = f"train task.py:make --epochs {EPOCHS} --threads 1 --checkpoint {name}/c.pt" + " --resume" * resume
            process.stdin.write(json.dumps({"line": line, **job}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        assert run("whole") == 0
        yield folder, run
        process.stdin.close()


def done(path):
    """How many epochs a checkpoint holds; 0 without one."""
    return len(checkpoints.read(path)["history"]) if path.exists() else 0


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        keys = one.keys() - {"seconds", "optimizer_seconds"}
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in keys)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        ("in the middle of the file", 2),
        ("before the file is safe", 2),
        ("before it takes its place", 2),
        ("once it has taken its place", 3),
    ],
)
def test_killed_at_any_point_of_saving_the_last_whole_checkpoint_stays(nursery, point, kept):
    folder, run = nursery
    name = point.replace(" ", "_")
    path = folder / name / "c.pt"
    assert run(name, point=point, calls=3) == -9
    assert done(path) == kept
    assert run(name, resume=True) == 0
    assert equal(checkpoints.read(path), checkpoints.read(folder / "whole" / "c.pt"))
    assert [each.name for each in path.parent.iterdir()] == ["c.pt"], "what the killed run left is swept away"


def test_killed_at_random_moments_again_and_again(nursery):
    folder, run = nursery
    path = folder / "random" / "c.pt"
    generator = torch.Generator().manual_seed(0)
    kills = 0
    for _ in range(KILLS):
        before = done(path)
        # Counted from the first save of the run: an epoch and its save take some ten milliseconds.
        wait = 0.02 * torch.rand((), generator=generator).item()
        code = run("random", resume=before > 0, seconds=wait, path=str(path))
        assert code in (0, -9), "a run that resumes never finds a checkpoint that it does not take"
        assert done(path) > before
        if code == 0 or done(path) == EPOCHS:
            break
        kills += 1
    assert kills >= 3, "the runs were over before they could be killed: raise EPOCHS"
    assert run("random", resume=True) == 0
    assert equal(checkpoints.read(path), checkpoints.read(folder / "whole" / "c.pt"))


def test_every_beginning_of_a_checkpoint_is_refused(nursery, tmp_path):
    content = (nursery[0] / "whole" / "c.pt").read_bytes()
    part = tmp_path / "c.pt"
    lengths = {0, 1, 2, 3, 4, 30, 64, len(content) // 2, *range(0, len(content), 1 + len(content) // 60)}
    for length in sorted({*lengths, *(len(content) - back for back in (1, 2, 21, 22, 23, 46, 100, 1000))}):
        part.write_bytes(content[:length])
        with pytest.raises(StudyError, match="is damaged, or no checkpoint of onepass"):
            checkpoints.read(part)


def test_a_flipped_bit_is_found_or_does_no_harm(tmp_path):
    """Torch itself loads weights whose bytes have changed on the disk."""
    path = tmp_path / "c.pt"
    state = {"model": {"weight": torch.arange(400.0)}, "history": [1, 2, 3]}
    checkpoints.write(path, state)
    content, whole = path.read_bytes(), checkpoints.read(path)
    found = 0
    for place in range(0, len(content), 7):
        broken = bytearray(content)
        broken[place] ^= 4
        path.write_bytes(broken)
        try:
            read = checkpoints.read(path)
        except StudyError:
            found += 1
        else:
            assert equal(read, whole), place
    assert found >= 1600 / 7, "at the least the weights themselves are guarded"
