"""The built-in tasks: their data as their sources give them, and what is said when they are not there."""

import dataclasses
import hashlib
import io
import os
import pickle
import shutil
import statistics
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from onepass.optim.names import nearest
from onepass.study import airfoil
from onepass.study.errors import StudyError
from onepass.study.folders import DATA_DIR_VARIABLE
from onepass.study.record import Settings
from onepass.study.task import load_task, task_names
from onepass.study.tasks import cifar10
from onepass.study.training import fit

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_airfoil = pytest.mark.skipif(not (DATA / airfoil.FILE).is_file(), reason=f"no {airfoil.FILE} in {DATA}")


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A folder without data, so that nothing is found by accident."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(StudyError, match=r"unknown task 'digts'; did you mean 'digits'\?"):
        load_task("digts")
    assert task_names() == ["digits", "cifar10", "airfoil", "airfoil:concise"]


def test_nearest_lists_all_when_none_is_near():
    assert nearest("zzz", ["sgd", "adam"]) == "known: adam, sgd"
    assert nearest("adma", ["sgd", "adam"]) == "did you mean 'adam'?"


def test_an_error_is_one_line():
    assert str(StudyError("first\n   second\t third")) == "first second third"


def test_digits_has_a_fixed_split_with_each_digit_in_proportion():
    task, again = load_task("digits"), load_task("digits")
    splits = [task.train, task.validation, task.test]
    assert [len(split) for split in splits] == [1077, 360, 360]
    assert torch.equal(task.train.tensors[0], again.train.tensors[0])
    together = torch.cat([split.tensors[0] for split in splits])
    assert together.shape == (1797, 1, 8, 8)
    assert (together.min(), together.max()) == (0, 1)
    from sklearn.datasets import load_digits

    pixels = torch.tensor(load_digits().data, dtype=torch.float32).sum(0) / 16
    torch.testing.assert_close(together.flatten(1).sum(0), pixels)
    for split in splits:
        shares = split.tensors[1].bincount(minlength=10) / len(split)
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_digits_model_is_small_and_learns():
    task = load_task("digits")
    assert len(list(task.model().parameters())) == 8
    outcome = fit(task, Settings("adamw", epochs=6, seed=1))
    assert outcome.test_metric > 0.9
    assert outcome.steps == 6 * 34


# CIFAR-10


def batch_of(count, seed, protocol=2):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = generator.integers(0, 10, count).tolist()
    raw = pickle.dumps({"data": images, "labels": labels, "batch_label": b"x"}, protocol=protocol)
    return images.reshape(-1, 3, 32, 32), labels, raw


@pytest.fixture
def small(tmp_path):
    """A small archive of the official form, in tmp_path/data, and the source that describes it."""
    names = [*cifar10.OFFICIAL.train_md5, *cifar10.OFFICIAL.test_md5]
    batches = {name: batch_of(6, seed)[2] for seed, name in enumerate(names)}
    return pack(tmp_path / "data", batches)


def pack(folder, batches):
    folder.mkdir(exist_ok=True)
    path = folder / cifar10.OFFICIAL.archive
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in {"readme.html": b"hello", **batches}.items():
            member = tarfile.TarInfo(f"{cifar10.OFFICIAL.folder}/{name}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    md5 = {name: hashlib.md5(raw).hexdigest() for name, raw in batches.items()}
    return dataclasses.replace(
        cifar10.OFFICIAL,
        url="http://127.0.0.1:9/refused",
        archive_md5=hashlib.md5(path.read_bytes()).hexdigest(),
        train_md5={name: each for name, each in md5.items() if name.startswith("data")},
        test_md5={name: each for name, each in md5.items() if name.startswith("test")},
    )


def unpack(folder, source):
    with tarfile.open(folder / source.archive) as tar:
        tar.extractall(folder, filter="data")
    (folder / source.archive).unlink()


def test_cifar10_reads_the_archive(tmp_path, small):
    task = cifar10.make_task(tmp_path / "data", small, held_out=4)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [26, 4, 6]
    images, labels, _ = batch_of(6, 4)
    inputs, targets = task.validation[torch.arange(4)]
    assert targets.tolist() == labels[2:]
    expected = (torch.from_numpy(images[2:]).float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(inputs, expected)
    assert inputs.dtype == torch.float32
    assert [path.name for path in (tmp_path / "data").iterdir()] == [small.archive], "nothing is unpacked"


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_reads_the_folder(tmp_path, small, inside):
    before = cifar10.read(tmp_path / "data", small)
    unpack(tmp_path / "data", small)
    after = cifar10.read(tmp_path / "data" / (small.folder if inside else ""), small)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_cifar10_reads_from_the_variable_and_the_working_folder(tmp_path, small, monkeypatch):
    assert len(cifar10.read(None, small)[0]) == 30
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "elsewhere"))
    assert len(cifar10.read(None, small)[0]) == 30


def test_cifar10_model_is_the_tutorials():
    model = cifar10.make_model()
    assert sum(parameter.numel() for parameter in model.parameters()) == 545_098
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_cifar10_trains_on_the_small_archive(tmp_path, small):
    task = cifar10.make_task(tmp_path / "data", small, held_out=4)
    outcome = fit(task, Settings(task.optimizer, epochs=1, batch_size=13))
    assert outcome.steps == 2
    assert (task.lr, task.weight_decay, task.batch_size, task.epochs) == (1e-4, 1e-2, 32, 10)


def test_cifar10_refuses_a_damaged_archive(tmp_path, small):
    path = tmp_path / "data" / small.archive
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StudyError, match=r"is damaged: its MD5 is \w+, not \w+; download it again from http"):
        cifar10.read(tmp_path / "data", small)


def test_cifar10_refuses_a_damaged_or_missing_file(tmp_path, small):
    unpack(tmp_path / "data", small)
    path = tmp_path / "data" / small.folder / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(StudyError, match="data_batch_3 is damaged"):
        cifar10.read(tmp_path / "data", small)
    path.unlink()
    with pytest.raises(StudyError, match="data_batch_3 is missing"):
        cifar10.read(tmp_path / "data", small)


def test_cifar10_refuses_an_archive_that_lacks_a_batch(tmp_path):
    source = pack(tmp_path / "data", {"data_batch_1": batch_of(3, 0)[2]})
    source = dataclasses.replace(source, test_md5={"test_batch": "0"})
    with pytest.raises(StudyError, match="holds no cifar-10-batches-py/test_batch"):
        cifar10.read(tmp_path / "data", source)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (pickle.dumps({"data": Trap(), "labels": []}), "refers to posix.mkdir"),
        (pickle.dumps({"labels": []}), "'data'"),
        (pickle.dumps([1, 2]), "not a CIFAR-10 batch"),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [1, 2]}), "cannot reshape"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}), "2 images but 1 labels"),
        (b"", "Ran out of input"),
    ],
)
def test_cifar10_runs_no_code_and_refuses_what_is_no_batch(tmp_path, content, complaint):
    source = pack(tmp_path / "data", {"data_batch_1": content, "test_batch": batch_of(3, 1)[2]})
    with pytest.raises(StudyError, match=complaint):
        cifar10.read(tmp_path / "data", source)
    assert not Path("sprung").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar10_reads_old_and_newer_pickles(tmp_path, protocol):
    images, labels, raw = batch_of(5, 3, protocol)
    source = pack(tmp_path / "data", {"data_batch_1": raw, "test_batch": raw})
    inputs, targets, *_ = cifar10.read(tmp_path / "data", source)
    assert torch.equal(inputs, torch.from_numpy(images))
    assert targets.tolist() == labels


def test_cifar10_downloads_whole_or_not_at_all(tmp_path, small, capsys):
    (tmp_path / "data").rename(tmp_path / "server")
    source = dataclasses.replace(small, url=(tmp_path / "server" / small.archive).as_uri())
    assert len(cifar10.read(None, source)[0]) == 30
    assert "downloading file:" in capsys.readouterr().err
    assert [path.name for path in Path("data").iterdir()] == [small.archive]
    Path("data", small.archive).unlink()
    with pytest.raises(StudyError, match="sent is damaged"):
        cifar10.read(None, dataclasses.replace(source, archive_md5="0"))
    assert not list(Path("data").iterdir())


def test_cifar10_says_what_to_do_without_a_network(small):
    shutil.rmtree("data")
    with pytest.raises(StudyError, match=r"cannot download http://127.0.0.1:9/refused .* --data-dir"):
        cifar10.read(None, small)
    assert not Path("data").exists()
    with pytest.raises(StudyError, match="--data-dir nowhere is not a folder"):
        load_task("cifar10", Path("nowhere"))


# Airfoil


def test_airfoil_says_where_to_get_the_data(tmp_path):
    with pytest.raises(StudyError, match=r"no airfoil_self_noise.dat in data; download it from https.*291.*--data-dir"):
        load_task("airfoil")
    (tmp_path / airfoil.FILE).write_text("1 2 3")
    with pytest.raises(StudyError, match="is damaged: its SHA-1"):
        load_task("airfoil", tmp_path)


@needs_airfoil
def test_airfoil_is_standardised_and_starts_as_in_the_chapter():
    task = load_task("airfoil", DATA)
    features, targets = task.train.tensors
    assert features.shape == (1500, 5)
    assert targets.shape == (1500, 1)
    assert features.dtype == targets.dtype == torch.float32
    # The three rows left out keep the mean of the others from being exactly 0.
    assert features.mean(0).abs().max() < 0.01
    assert (features.std(0, correction=0) - 1).abs().max() < 0.01
    assert task.optimum == pytest.approx(0.24169, abs=5e-6)
    assert task.options == {"adam": {"eps": 1e-6}, "yogi": {"eps": 1e-3}}
    torch.manual_seed(0)
    weights = torch.cat([task.model().weight.flatten() for _ in range(200)])
    assert weights.std().item() == pytest.approx(0.01, rel=0.1)
    assert task.model().bias.item() == 0


def median_of_seeds(name, optimizer, epochs, seeds):
    task = load_task(name, DATA)
    return statistics.median(
        fit(task, Settings(optimizer, epochs=epochs, seed=seed)).test_metric for seed in range(seeds)
    )


@needs_airfoil
@pytest.mark.parametrize(
    ("name", "optimizer", "epochs", "seeds", "known"),
    [
        ("airfoil", "adam", 2, 20, 0.2438),
        ("airfoil", "yogi", 2, 20, 0.2436),
        ("airfoil:concise", "adam", 4, 11, 0.2438),
    ],
)
def test_airfoil_reaches_the_known_median(name, optimizer, epochs, seeds, known):
    assert median_of_seeds(name, optimizer, epochs, seeds) == pytest.approx(known, abs=0.0015)


@needs_airfoil
def test_airfoil_is_the_textbook_loop():
    """The run, step for step, as the chapter's own code would write it."""
    task = load_task("airfoil", DATA)
    outcome = fit(task, Settings("adam", epochs=2, seed=7))
    features, targets = task.train.tensors
    torch.manual_seed(7)
    model = task.model()
    w, b = (parameter.detach().clone() for parameter in model.parameters())
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in (w, b)]
    order = torch.Generator().manual_seed(7)
    t = 0
    for _ in range(2):
        for rows in torch.randperm(1500, generator=order).split(10):
            x, y = features[rows], targets[rows]
            error = (x @ w.T + b - y) / len(rows)
            t += 1
            for p, g, (m, v) in zip((w, b), (error.T @ x, error.sum(0)), state, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g**2)
                p.sub_(0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-6))
    loss = ((features @ w.T + b - targets) ** 2).mean() / 2
    assert outcome.test_loss == pytest.approx(loss.item(), rel=1e-4)
    assert outcome.test_metric == pytest.approx(outcome.test_loss, rel=1e-6)
