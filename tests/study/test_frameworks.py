"""`onepass train airfoil --framework`, and the experiment in NumPy and torch; other frameworks: tests/frameworks."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from airfoil_oracle import DATA, TOLERANCE, check_framework, concise_forms, needs_airfoil, scratch_forms, textbook_loss

from onepass.__main__ import main
from onepass.study.frameworks import experiment, together
from onepass.study.frameworks.experiment import CONCISE, SCRATCH


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs `onepass train airfoil ...` and gives its exit code, what it printed, and what it complained of."""
    monkeypatch.chdir(tmp_path)

    def command(line):
        code = main(["train", "airfoil", *line.split()])
        return code, *capsys.readouterr()

    return command


@needs_airfoil
@pytest.mark.parametrize(
    ("optimizer", "style", "eps", "epochs", "known"),
    [("adam", SCRATCH, 1e-6, 2, 0.2438), ("yogi", SCRATCH, 1e-3, 2, 0.2436), ("adam", CONCISE, 1e-8, 4, 0.2438)],
)
def test_the_oracle_comes_to_the_known_medians(optimizer, style, eps, epochs, known):
    found = statistics.median(textbook_loss(optimizer, style, eps, epochs, seed) for seed in range(20))
    assert found == pytest.approx(known, abs=0.0015)


@needs_airfoil
def test_airfoil_in_numpy_comes_to_the_textbooks_losses():
    check_framework("numpy", scratch_forms())


@needs_airfoil
def test_airfoil_in_torch_comes_to_the_textbooks_losses():
    check_framework("torch", scratch_forms() | concise_forms("torch.optim", "onepass"))


@needs_airfoil
def test_one_table_and_one_record(run):
    code, out, err = run(f"--framework numpy,mxnet --seeds 2 --data-dir {DATA} --environments nowhere --record r.json")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "airfoil, medians of 2 seeds; best possible half mse 0.24169"
    assert lines[1].split() == ["framework", "optimizer", "by", "half", "mse", "quartiles", "gap", "s/epoch"]
    assert lines[2].split()[:5] == ["NumPy", "adam", "from", "scratch", "onepass.functional"]
    assert lines[4].split() == ["mxnet", "not", "installed"]
    assert "make test-frameworks builds nowhere/mxnet; or pip install 'mxnet==1.9.1' 'numpy<1.24'" in lines[5]
    record = json.loads(Path("r.json").read_text())
    assert record["optimum"] == pytest.approx(0.24169, abs=5e-6)
    first = record["frameworks"]["numpy"]["rows"][0]
    expected = [textbook_loss("adam", SCRATCH, 1e-6, 2, seed) for seed in range(2)]
    assert first["losses"] == pytest.approx(expected, abs=TOLERANCE)
    assert len(first["seconds_per_epoch"]) == 2
    assert "numpy" in record["frameworks"]["numpy"]["versions"]


@needs_airfoil
def test_a_framework_that_fails_is_named(run, tmp_path):
    python = tmp_path / "envs" / "jax" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 3\n")
    python.chmod(0o755)
    code, out, err = run(f"--framework jax --seeds 1 --data-dir {DATA} --environments envs")
    assert code == 2
    assert f"jax: {python} stopped: no such luck" in out
    assert err == "onepass: jax failed; what they said is above\n"


@needs_airfoil
def test_a_record_that_cannot_be_written_is_refused_at_once(run, monkeypatch):
    monkeypatch.setattr(together, "_run_one", lambda *_: pytest.fail("ran before it looked"))
    code, _, err = run(f"--framework numpy --data-dir {DATA} --record .")
    assert code == 2
    assert err == "onepass: cannot write to --record . (Is a directory); name another place\n"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--framework jaxx", "unknown framework 'jaxx' in --framework; choose from numpy, torch, jax"),
        ("--framework numpy --lr 0.1", "--lr does not go with --framework"),
        ("--framework numpy --then-set a=1", "--then-set does not go with --framework"),
        ("--framework numpy --resume", "--resume does not go with --framework"),
        ("--framework numpy --seeds 0", "--seeds 0 is not a positive number"),
        ("--framework numpy", "no airfoil_self_noise.dat in data"),
        ("--seeds 3", "--seeds 3 is about other frameworks; name them with --framework"),
        ("--record x.json", "--record x.json is about other frameworks"),
    ],
)
def test_what_does_not_go_together_is_refused(run, line, complaint):
    code, _, err = run(line)
    assert code == 2
    assert complaint in err


def test_another_task_is_refused(capsys):
    assert main(["train", "digits", "--framework", "jax"]) == 2
    assert "--framework is for the task airfoil, not 'digits'" in capsys.readouterr().err


def test_no_framework_at_all_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(together, "read", lambda _: ([[1.0]], [[1.0]]))
    monkeypatch.setattr(together, "least_squares", lambda *_: 0.0)
    assert main(["train", "airfoil", "--framework", "mxnet", "--environments", "nowhere"]) == 2
    assert "none of mxnet is installed" in capsys.readouterr().err


def test_each_file_needs_its_framework_alone():
    """The experiment in NumPy imports neither torch nor the packages of the command line."""
    code = (
        "import sys, onepass.study.frameworks.numpy; print([m for m in ('torch', 'rich', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mxnet", None)
    with pytest.raises(experiment.StudyError, match="mxnet is not installed here: mxnet is missing"):
        experiment.load("mxnet")
