"""`onepass compare` as a user meets it, and what it keeps when it is stopped, killed or asked again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import without_times

from onepass.__main__ import main
from onepass.study import compare as comparison
from onepass.study import ledger, report
from onepass.study.figures import PICTURES
from onepass.study.ledger import Ledger, task_fingerprint, trial_key
from onepass.study.record import Outcome
from onepass.study.task import load_task
from onepass.study.training import fit

TASK = """
import sys
sys.path.insert(0, {folder!r})
from tiny import tiny_task

def make_task():
    return tiny_task()
"""

# A model that takes its worker process down, once some trials are done.
DEADLY = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from tiny import make_model, tiny_task

def model():
    if os.path.exists("out/trials.jsonl"):
        os.kill(os.getpid(), signal.SIGKILL)
    return make_model()

def make_task():
    return tiny_task(model=model)
"""

SMALL = "--optimizers adam,sgd:momentum=0.9 --lr-grid 1e-3,1e-2 --tuning-seeds 1 --seeds 2 --epochs 2 --out out"


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_task(TASK)


def write_task(text):
    Path("mine.py").write_text(text.format(folder=str(Path(__file__).parent)))


@pytest.fixture
def in_process(monkeypatch):
    """Trials run in this process, nothing is drawn, and the list of the trials that ran is handed out."""
    ran = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    class Pool:
        def __init__(self, spec, data_dir, workers):
            self.task = load_task(spec, data_dir)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, trials):
            for key, settings, evaluate_test in trials:
                ran.append(settings)
                yield key, fit(self.task, settings, evaluate_test=evaluate_test)

    monkeypatch.setattr(comparison, "Pool", Pool)
    monkeypatch.setattr(report, "png", lambda *_: b"drawn elsewhere")
    yield ran
    torch.set_num_threads(threads)


@pytest.fixture
def run(capsys):
    """Runs `onepass compare ...` and gives its exit code, what it printed, and what it complained of."""

    def command(line):
        code = main(["compare", *line.split()])
        return code, *capsys.readouterr()

    return command


def trials(folder="out"):
    """The outcomes in `results.json`, without their times, by all that names a trial."""
    data = json.loads((Path(folder) / "results.json").read_text())
    return {
        (trial["stage"], trial["optimizer"], trial["lr"], trial["seed"]): without_times(
            Outcome.from_json(trial["outcome"])
        )
        for trial in data["trials"]
    }


def test_real_workers_whatever_their_number_find_the_same_and_write_everything(run):
    code, out, err = run(f"mine.py:make_task {SMALL} --workers 2")
    assert (code, err) == (0, "")
    assert "final: 8 of 8 trials done" in out
    assert "No verdict yet" in out
    assert "opt = onepass." in out
    assert "\x1b" not in out
    names = {path.name for path in Path("out").iterdir()}
    assert names == {"trials.jsonl", "results.json", "report.html", *PICTURES}
    assert run(f"mine.py:make_task {SMALL} --workers 1 --out alone")[0] == 0
    assert trials("out") == trials("alone")


def test_a_trial_is_what_fit_makes_of_its_settings(run, in_process):
    run(f"mine.py:make_task {SMALL}")
    task = load_task("mine.py:make_task")
    plan = comparison.make_plan(
        task, optimizers="adam,sgd:momentum=0.9", lr_grid="1e-3,1e-2", tuning_seeds=1, seeds=2, epochs=2
    )
    found = trials()
    lr = next(lr for stage, label, lr, _ in found if (stage, label) == ("final", "Adam"))
    trial = plan.finals({"Adam": lr, "SGD momentum=0.9": lr})[0]
    assert found["final", "Adam", lr, 0] == without_times(fit(task, plan.settings(trial)))
    assert all(outcome["test_loss"] is None for (stage, *_), outcome in found.items() if stage == "tuning")


def test_the_same_command_again_runs_nothing_and_finds_the_same(run, in_process):
    run(f"mine.py:make_task {SMALL}")
    before, kept = trials(), Path("out/trials.jsonl").read_bytes()
    in_process.clear()
    code, out, _ = run(f"mine.py:make_task {SMALL}")
    assert code == 0
    assert not in_process
    assert "4 tuning trials are already done" in out
    assert trials() == before
    assert Path("out/trials.jsonl").read_bytes() == kept


def test_a_changed_plan_reuses_what_still_holds(run, in_process):
    run(f"mine.py:make_task {SMALL}")
    in_process.clear()
    run(f"mine.py:make_task {SMALL} --optimizers adam,sgd:momentum=0.9,yogi --seeds 3")
    new = [(each.optimizer, each.seed) for each in in_process]
    assert {optimizer for optimizer, seed in new if seed > 2} == {"yogi"}
    assert sorted(seed for optimizer, seed in new if optimizer == "adam") == [2]


@pytest.mark.parametrize("change", ["--epochs 3", "--schedule constant", "--batch-size 4", "--weight-decay 0.1"])
def test_what_changes_the_numbers_reuses_nothing(run, in_process, change):
    run(f"mine.py:make_task {SMALL}")
    in_process.clear()
    run(f"mine.py:make_task {SMALL} {change}")
    assert len(in_process) == 8


def test_a_changed_task_file_reuses_nothing(run, in_process):
    run(f"mine.py:make_task {SMALL}")
    in_process.clear()
    write_task(TASK + "\n# another word\n")
    run(f"mine.py:make_task {SMALL}")
    assert len(in_process) == 8


def test_data_count_by_content():
    from tiny import tiny_task

    one, other = tiny_task(), tiny_task()
    assert task_fingerprint(one) == task_fingerprint(other)
    other.train.tensors[0][3, 1] += 1
    assert task_fingerprint(one) != task_fingerprint(other)


def test_a_key_is_of_the_settings_and_of_the_versions(monkeypatch):
    plan = comparison.make_plan(
        load_task("mine.py:make_task"), optimizers="adam,sgd", lr_grid="0.1", tuning_seeds=1, seeds=2
    )
    settings = plan.settings(plan.tuning[0])
    key = trial_key("task", settings, False)
    assert key == trial_key("task", settings, False)
    assert key not in (trial_key("other", settings, False), trial_key("task", settings, True))
    monkeypatch.setattr(ledger, "versions", lambda: {"torch": "0.0"})
    assert key != trial_key("task", settings, False)


def test_a_torn_last_line_is_done_again(run, in_process):
    run(f"mine.py:make_task {SMALL}")
    before, path = trials(), Path("out/trials.jsonl")
    path.write_bytes(path.read_bytes()[:-100])
    in_process.clear()
    assert run(f"mine.py:make_task {SMALL}")[0] == 0
    assert len(in_process) == 1
    assert trials() == before
    assert len(path.read_text().splitlines()) == 8
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_line_that_is_not_a_trial_is_named(tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_text('{"key": "a"}\n')
    with pytest.raises(comparison.StudyError, match=r"trials.jsonl, line 1 is not a trial .*; delete that line"):
        Ledger(path)


def test_diverged_runs_are_counted_and_no_error(run, in_process):
    code, out, _ = run(f"mine.py:make_task {SMALL} --optimizers sgd,adam --lr-grid 1e30")
    assert code == 0
    data = json.loads(Path("out/results.json").read_text())["analysis"]
    assert [(row["diverged"], row["tuning_diverged"], row["median"]) for row in data["ranking"]] == [(2, 1, None)] * 2
    assert "2/2" in out
    assert "No verdict: at least half the final runs of every optimizer diverged" in " ".join(out.split())
    assert "opt = onepass." not in out + Path("out/report.html").read_text(), "nothing that diverged is recommended"


def test_a_killed_worker_is_one_line_and_its_elders_are_kept(run):
    write_task(DEADLY)
    code, _, err = run(f"mine.py:make_task {SMALL} --workers 1")
    assert code == 2
    assert re.fullmatch(r"onepass: a worker process was killed.* are kept: run the same command .*\n", err)
    assert len(Path("out/trials.jsonl").read_text().splitlines()) >= 1
    assert not Path("out/results.json").exists()


def test_ctrl_c_says_how_far_it_got_and_leaves_no_process_behind():
    line = f"mine.py:make_task {SMALL} --epochs 100 --workers 2".split()
    kept = Path("out/trials.jsonl")
    with subprocess.Popen(
        [sys.executable, "-m", "onepass", "compare", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(comparison.__file__).parents[2])},
    ) as process:
        while not (kept.exists() and kept.read_text().count("\n")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    done = kept.read_text().count("\n")
    assert process.returncode == 130
    assert (
        err == f"onepass: stopped: {done} of 8 trials are done and kept in out; the same command goes on from there\n"
    )
    assert dies(process.pid, within=10)


def dies(group, within):
    """Whether the last process of a group is gone after so many seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("digitz", ["digitz", "digits"]),
        ("mine.py:make_task --optimizers adma,sgd", ["adma", "adam"]),
        ("mine.py:make_task --lr-grid 0", ["0", "positive"]),
        ("mine.py:make_task --seeds 1", ["--seeds is 1"]),
        ("mine.py:make_task --batch-size many", ["many"]),
        ("mine.py:make_task --workers 0", ["--workers is 0"]),
        ("mine.py:make_task --out mine.py", ["mine.py", "cannot be written to"]),
        ("mine.py:make_task --out mine.py/deeper", ["mine.py/deeper", "cannot be written to"]),
        ("mine.py:make_task --device gpu", ["gpu"]),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(run, line, names):
    code, out, err = run(line)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(name in err for name in names)
    assert [path.name for path in Path().iterdir() if path.name != "__pycache__"] == ["mine.py"]


def test_a_folder_is_named_after_the_task():
    from tiny import tiny_task

    assert comparison.default_folder(tiny_task(name="airfoil:concise")) == Path("runs/compare-airfoil-concise")
