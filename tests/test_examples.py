"""Every script in examples/ runs, leaves its picture, and prints figures that bear out what it claims."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onepass.functional import list_rules

EXAMPLES = Path(__file__).parents[1] / "examples"
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"


@pytest.fixture
def run(tmp_path):
    """Runs a script in its quick form and gives what it printed; its pictures must be there and large enough."""

    def script(name, *pictures):
        environment = {key: value for key, value in os.environ.items() if key != "ONEPASS_DATA_DIR"}
        command = [
            sys.executable,
            "-W",
            "error",
            str(EXAMPLES / f"{name}.py"),
            "--quick",
            "--out",
            str(tmp_path / "out"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        made = {path.name: path for path in (tmp_path / "out").iterdir()}
        assert set(made) == {f"{picture}.png" for picture in pictures or (name,)}
        for path in made.values():
            assert path.read_bytes()[:4] == b"\x89PNG"
            assert path.stat().st_size > 20_000
        return done.stdout.splitlines()

    return script


def numbers(text):
    return [float(each) for each in re.findall(NUMBER, text)]


def test_the_learning_rate_has_a_best_value_of_each_optimizers_own(run):
    lines = [line for line in run("learning_rate") if "best at lr" in line]
    assert len(lines) == 6
    best = set()
    for line in lines:
        lr, _, low, high = numbers(line)
        best.add(lr)
        assert min(low, high) > 5, line
    assert len(best) >= 3


def test_bias_correction_is_a_decay_rate_to_rounding(run):
    in_float64, in_float32, left_out, _ = run("bias_correction")
    # Parameters of at most 1 in magnitude, each of 500 steps rounded two or three times.
    assert numbers(in_float64)[-1] < 500 * 2**-52
    assert numbers(in_float32)[-1] < 500 * 2**-23
    assert numbers(left_out)[-1] > 0.1


def test_a_constant_rate_has_a_floor_that_a_falling_one_goes_below(run):
    ends, theory, _ = run("falling_rate")
    high, _, middle, _, low, _, falling = numbers(ends)
    assert high > 5 * middle > 5 * low > 0
    assert falling < low
    # Some 3000 independent squares at the lowest rate: a standard error of 2.6 %.
    assert numbers(theory)[0] < 10


def test_adam_goes_to_the_worst_point_and_amsgrad_and_yogi_towards_the_best(run):
    lines = run("amsgrad")[:-1]
    assert len(lines) == 6
    for line in lines:
        early, _, late = numbers(line.partition("period:")[2])
        if "Adam's" in line:
            assert late > 0.9, line
        else:
            assert late < early, line
            assert late < (-0.9 if "Theorem 1" in line else 0), line


def test_the_forms_of_decay_are_the_same_in_sgd_alone(run):
    sgd, momentum, adam, _ = (numbers(line.replace("L2", "").partition("at most")[2]) for line in run("weight_decay"))
    # Weights of at most 10, rounded in 600 steps.
    assert sgd[0] < 600 * 10 * 2**-52
    _, l2_small, l2_large, decoupled_small, decoupled_large = momentum
    assert l2_small == pytest.approx(l2_large, abs=2e-3)
    assert decoupled_small == pytest.approx(decoupled_large, abs=2e-3)
    assert l2_small < decoupled_small - 0.2
    _, l2_small, l2_large, decoupled_small, decoupled_large = adam
    assert decoupled_small == pytest.approx(decoupled_large, abs=2e-3)
    assert l2_small < decoupled_small - 0.2
    assert l2_large > decoupled_large + 0.02


def test_every_optimizer_goes_down_every_surface(run):
    lines = run("surfaces", "rosenbrock", "beale", "saddle")
    found = {tuple(line.partition(",")[0].split(": ")): line for line in lines if not line.startswith("picture")}
    assert set(found) == {(name, rule) for name in ("rosenbrock", "beale", "saddle") for rule in list_rules()}
    for (name, _), line in found.items():
        if name != "saddle":
            assert numbers(line)[-1] < {"rosenbrock": 24.2, "beale": 41.25}[name], line
    leaves = {rule: numbers(found["saddle", rule])[0] for rule in ("rmsprop", "adam", "sgd")}
    assert leaves["rmsprop"] < leaves["adam"] < leaves["sgd"]


def test_the_index_names_every_script():
    index = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert path.name in index, path.name
