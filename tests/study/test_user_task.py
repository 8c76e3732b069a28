"""A user's own task: that it trains, and that each way to break it is one line that says where."""

import shutil
from pathlib import Path

import pytest

from onepass.__main__ import main
from onepass.study.errors import StudyError
from onepass.study.record import Settings
from onepass.study.task import load_task
from onepass.study.training import fit

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_task.py"

WHOLE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from onepass.study.task import ACCURACY, Metric, Task

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs):
        return self.layer(inputs)

def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)

def make_task():
    data = TensorDataset(torch.randn(8, 2), torch.randint(2, (8,)))
    return Task("mine", Model, data, data, DataLoader(data, 3), loss, ACCURACY)
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes the task file, with one piece of it replaced, and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write(old="", new=""):
        assert old in WHOLE
        Path("mine.py").write_text(WHOLE.replace(old, new) if old else WHOLE)
        return "mine.py:make_task"

    return write


def test_the_example_is_short_and_learns():
    assert len(EXAMPLE.read_text().splitlines()) <= 20
    task = load_task(f"{EXAMPLE}:two_moons")
    outcome = fit(task, Settings(task.optimizer, epochs=task.epochs))
    assert outcome.test_metric > 0.93


def test_a_task_of_loaders_and_data_sets_trains(written):
    task = load_task(written())
    assert task.source == Path("mine.py")
    assert len(fit(task, Settings("sgd", epochs=2)).history) == 2


def test_it_may_import_its_neighbours(written):
    Path("neighbour_of_mine.py").write_text("from torch import nn")
    written("from torch import nn", "from neighbour_of_mine import nn")
    assert load_task("mine.py:make_task").name == "mine"


BROKEN = {
    "a mistake of syntax": (
        "def make_task():",
        "def make_task(:",
        r"mine.py: importing it raised SyntaxError: .*line 18",
    ),
    "an import that fails": (
        "import torch\n",
        "import torhc\n",
        r"importing it raised ModuleNotFoundError: .*\(line 2\)",
    ),
    "a script that exits": ("import torch\n", "raise SystemExit('bye')\n", r"importing it raised SystemExit: bye"),
    "no such function": (
        "def make_task",
        "def make_taks",
        r"mine.py: no function 'make_task'; did you mean 'make_taks'",
    ),
    "a function that raises": (
        "    data =",
        "    1 / 0\n    data =",
        r"make_task\(\) raised ZeroDivisionError: .*\(line 19\)",
    ),
    "a result of the wrong type": ("return Task", "return tuple", r"raised TypeError|returned tuple"),
    "nothing returned": (
        "    return Task",
        "    Task",
        r"make_task\(\) returned NoneType, not an onepass.study.task.Task",
    ),
    "a model that raises": (
        "self.layer = nn.Linear(2, 2)",
        "1 / 0",
        r"model\(\) raised ZeroDivisionError: .*\(line 10\)",
    ),
    "a model that is none": ("Model, data", "dict, data", r"model\(\) made dict, not a torch.nn.Module"),
    "a model without parameters": ("Model, data", "nn.Flatten, data", r"the model has no parameters to train"),
    "a model that fails on a batch": (
        "nn.Linear(2, 2)",
        "nn.Linear(3, 2)",
        r"the model raised RuntimeError: .*\(line 13\)",
    ),
    "a loss that raises": (
        "    return nn.functional",
        "    return torch.functoinal",
        r"the loss raised AttributeError",
    ),
    "a loss for each example": (
        "outputs, targets)\n\ndef",
        "outputs, targets, reduction='none')\n\ndef",
        r"shape \(8,\), not a",
    ),
    "a loss that is a number": (
        "outputs, targets)\n\ndef",
        "outputs, targets).item()\n\ndef",
        r"the loss returned float",
    ),
    "a loss without gradient": (
        "outputs, targets)\n\ndef",
        "outputs, targets).detach()\n\ndef",
        r"the backward pass raised",
    ),
    "a metric that raises": (
        "ACCURACY)",
        "Metric('x', lambda o, t: 1 / 0))",
        r"metric on validation data raised ZeroDiv",
    ),
    "batches that are no pairs": (
        "TensorDataset(torch.randn(8, 2),",
        "TensorDataset(",
        r"the train data gave a batch of type",
    ),
    "targets without examples": (
        "torch.randint(2, (8,)))",
        "torch.zeros(8))\n    data = DataLoader([(1, 2)], collate_fn=lambda pairs: pairs[0])",
        r"without examples",
    ),
    "data that are none": ("Model, data", "Model, 7", r"train data raised TypeError"),
    "an unknown optimizer": ("ACCURACY)", "ACCURACY, optimizer='adma')", r"unknown optimizer 'adma'"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_task_is_one_line(written, capsys, how):
    old, new, complaint = BROKEN[how]
    spec = written(old, new)
    with pytest.raises(StudyError, match=complaint):
        fit(load_task(spec), Settings(load_task(spec).optimizer, epochs=1))
    assert main(["train", spec]) == 2
    out, err = capsys.readouterr()
    assert out == "" or out.startswith("mine: ")
    assert err.count("\n") == 1
    assert err.startswith("onepass: ")
    assert not Path("runs").exists() or not list(Path("runs").rglob("*.pt"))


def test_a_file_or_function_that_is_not_named(written):
    with pytest.raises(StudyError, match=r"no file 'nowhere.py' for the task"):
        load_task("nowhere.py:make_task")
    with pytest.raises(StudyError, match=r"names no function; write mine.py:make_task"):
        load_task("mine.py")


def test_a_batch_size_for_a_loader_says_why_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, "my_task.py")
    assert main(["train", "my_task.py:two_moons", "--batch-size", "5"]) == 2
    assert "my_task.py gives a DataLoader, which makes its own batches" in capsys.readouterr().err
