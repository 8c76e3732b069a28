"""`onepass train`, `list` and `show` as a user meets them."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onepass.__main__ import main
from onepass.study import checkpoint as checkpoints


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    """Runs `onepass ...` and gives its exit code, what it printed, and what it complained of."""

    def command(line):
        code = main(line.split())
        return code, *capsys.readouterr()

    return command


def test_train_says_what_it_does(run):
    code, out, err = run("train digits --epochs 2 --seed 3")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "digits: adamw (lr 0.003), schedule constant, 2 epochs, seed 3, on cpu"
    for number, line in enumerate(lines[1:3], start=1):
        assert re.fullmatch(
            rf"epoch {number}/2  train loss \d\.\d+  validation loss \d\.\d+  accuracy 0\.\d+  lr 0.003  \d+\.\d s",
            line,
        )
    assert re.fullmatch(r"test loss \d\.\d+  accuracy 0\.\d+", lines[3])
    assert re.fullmatch(
        r"68 steps in \d+\.\d s; a step of the optimizer takes \d+\.\d{3} ms, \d+% of that; "
        r"checkpoint runs/digits/checkpoint.pt",
        lines[4],
    )
    assert "\x1b" not in out
    assert "\r" not in out
    assert [path.name for path in Path("runs/digits").iterdir()] == ["checkpoint.pt"]


def test_digits_is_the_default_task(run):
    code, out, _ = run("train --epochs 1 --optimizer ranger --batch-size full")
    assert code == 0
    assert out.startswith("digits: ranger,")
    assert "\n1 steps in" in out


def test_every_option_reaches_the_run(run):
    code, _, err = run(
        "train digits --optimizer sgd --lr 0.5 --weight-decay 0.1 --schedule cosine --warmup 0.1 --epochs 2 "
        "--batch-size 100 --seed 7 --device cpu --threads 1 --set momentum=0.9 --set nesterov=True --then adam "
        "--then-lr 0.25 --then-weight-decay 0.2 --then-set betas=(0.5,0.6) --patience 4 --checkpoint here/c.pt"
    )
    assert (code, err) == (0, "")
    settings = checkpoints.read_settings(Path("here/c.pt"))
    then = settings.then
    assert (settings.optimizer, settings.lr, settings.weight_decay) == ("sgd", 0.5, 0.1)
    assert (settings.schedule, settings.warmup, settings.epochs, settings.batch_size) == ("cosine", 0.1, 2, 100)
    assert (settings.seed, settings.device, settings.threads) == (7, "cpu", 1)
    assert dict(settings.options) == {"momentum": 0.9, "nesterov": True}
    assert (then.optimizer, then.lr, then.weight_decay, then.patience) == ("adam", 0.25, 0.2, 4)
    assert dict(then.options) == {"betas": (0.5, 0.6)}
    group = checkpoints.read(Path("here/c.pt"))["optimizer"]["param_groups"][0]
    assert (group["weight_decay"], group["momentum"], group["nesterov"]) == (0.1, 0.9, True)


def test_then_says_when_it_took_over(run):
    code, out, _ = run("train --epochs 3 --lr 0.02 --then sgd --then-lr 1e-6 --patience 3")
    assert code == 0
    assert "adamw never went 3 epochs without improving: sgd was not used" in out
    code, out, _ = run("train --epochs 8 --lr 0.1 --then sgd --then-lr 1e-6 --patience 1")
    assert code == 0
    assert re.search(r"adamw stopped improving: sgd took over after epoch (\d), from the weights of epoch \d\n", out)
    assert re.search(r"epoch 8/8 .* lr 1e-06 .*  sgd\n", out)


def test_resume_goes_on_with_the_settings_of_the_checkpoint(run):
    assert run("train --epochs 1 --lr 0.01 --set eps=1e-6")[0] == 0
    code, out, _ = run("train --resume --epochs 2")
    assert code == 0
    assert out.startswith("digits: adamw (lr 0.01), schedule constant, 2 epochs")
    assert [line[:9] for line in out.splitlines() if line.startswith("epoch")] == ["epoch 2/2"]
    whole = run("train --epochs 2 --lr 0.01 --set eps=1e-6 --checkpoint other.pt")[1]
    assert out.splitlines()[2] == whole.splitlines()[3], "the same test result"
    code, out, err = run("train --resume --lr 0.02")
    assert (code, out) == (2, "")
    assert "was trained with lr 0.01, not 0.02" in err


def test_a_diverged_run_leaves_no_half_result(run):
    code, _, err = run("train --optimizer sgd --lr 1e20")
    assert code == 2
    assert re.match(
        r"onepass: diverged at step \d: the loss is not finite at lr 1e\+20; try a lower --lr, such as 1e\+19,", err
    )
    assert not list(Path("runs").rglob("*.pt"))


MISTAKES = {
    "train digts": "unknown task 'digts'; did you mean 'digits'",
    "train --optimizer adma": "unknown optimizer 'adma'",
    "train --set bets=1": "AdamW takes no 'bets'; did you mean 'betas'",
    "train --set betas": "--set 'betas' is not NAME=VALUE",
    "train --then-set lr=1 --then sgd": "lr has an option of its own, --then-lr",
    "train --then-lr 1": "--then-lr 1.0 is about a second optimizer; name it with --then",
    "train --patience 2": "--patience 2 is about a second optimizer",
    "train --schedule cos": "unknown schedule 'cos'; did you mean 'cosine'",
    "train --threads 0": "threads 0 is not a positive number",
    "train --warmup 1.5": "warmup 1.5 is not a share",
    "train --batch-size some": "--batch-size 'some' is neither",
    "train --batch-size 0": "batch size 0 is neither",
    "train --epochs 0": "epochs 0 is not a positive number",
    "train --epochs many": "Invalid value for '--epochs'",
    "train --device abacus": "device 'abacus' cannot be used here",
    "train --lr -1": "-1",
    "train --learning-rate 1": "No such option: --learning-rate",
    "train airfoil": "no airfoil_self_noise.dat in data",
    "train --data-dir nowhere airfoil": "--data-dir nowhere is not a folder",
    "train --checkpoint file/c.pt": "cannot write a checkpoint to file/c.pt",
    "train --checkpoint file": "file is damaged, or no checkpoint of onepass",
    "train --tensorboard file/logs": "cannot write to --tensorboard file/logs",
    "train --resume": "no checkpoint runs/digits/checkpoint.pt to resume from; leave out --resume",
    "trian": "No such command 'trian'",
    "show adma": "unknown optimizer or rule 'adma': did you mean 'adamax' or 'adam'",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(run, line, monkeypatch):
    monkeypatch.delenv("ONEPASS_DATA_DIR", raising=False)
    Path("file").write_text("not a folder")
    code, out, err = run(line)
    assert (code, out) == (2, "")
    assert MISTAKES[line] in err
    assert err.startswith("onepass: ")
    assert err.count("\n") == 1
    assert not list(Path().rglob("*.pt"))
    assert Path("file").read_text() == "not a folder"


def test_tensorboard_gets_the_scalars(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("train --epochs 2 --tensorboard logs --schedule step")[0] == 0
    events = EventAccumulator("logs")
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss/step", "loss/train", "loss/validation", "accuracy/validation", "lr"}
    assert [event.step for event in events.Scalars("loss/validation")] == [34, 68]
    assert events.Scalars("lr")[1].value == pytest.approx(3e-5)


def test_tensorboard_is_asked_for_by_name(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, err = run("train --tensorboard logs")
    assert code == 2
    assert "pip install 'onepass[tensorboard]'" in err


def test_the_study_extra_is_asked_for_by_name(run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("onepass.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    code, _, err = run("list")
    assert (code, err) == (
        2,
        "onepass: this command needs the package typer; install it with pip install 'onepass[study]'\n",
    )


def test_list_and_show(run):
    code, out, _ = run("list")
    assert code == 0
    assert any(line.split()[:2] == ["adamw", "AdamW"] for line in out.splitlines())
    code, out, _ = run("show adam")
    assert code == 0
    assert "β₂" in out
    code, out, _ = run("show adam --latex")
    assert code == 0
    assert r"\beta_2" in out


def test_help_names_every_option_of_the_run(run):
    assert "train" in run("")[1]
    out = run("train --help")[1]
    for option in ("optimizer", "lr", "schedule", "warmup", "batch-size", "set", "then", "then-lr", "resume"):
        assert f"--{option} " in out


def test_ctrl_c_before_anything_is_trained_is_one_line(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("onepass.cli.load_task", interrupt)
    assert run("train") == (130, "", "onepass: interrupted\n")


def test_ctrl_c_while_the_package_loads_is_one_line():
    slow = Path("slow/onepass")
    slow.mkdir(parents=True)
    (slow / "__init__.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)")
    paths = ["slow", str(Path(__file__).parents[2])]
    code = f"import sys; sys.path[:0] = {paths}; import onepass_console; onepass_console.main()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "onepass: interrupted\n")


def test_ctrl_c_says_what_is_saved_and_how_to_go_on():
    shutil.copy(Path(__file__).parents[2] / "examples" / "my_task.py", "my_task.py")
    command = [sys.executable, "-u", "-m", "onepass", "train", "my_task.py:two_moons", "--epochs", "100000"]
    command += ["--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch      2/"):
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    match = re.fullmatch(
        r"onepass: interrupted: epochs 1 to (\d+) are saved in (runs/two-moons/checkpoint.pt); "
        r"the same command with --resume goes on from there\n",
        err,
    )
    assert match, err
    assert len(checkpoints.read(Path(match[2]))["history"]) == int(match[1])
