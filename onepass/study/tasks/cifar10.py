"""CIFAR-10, and the small convolutional network that tutorials on AdamW train on it.

60,000 colour images of 32x32 pixels in 10 classes: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny
Images" (2009), https://www.cs.toronto.edu/~kriz/cifar.html. Read from the official "CIFAR-10 python version": the
archive `cifar-10-python.tar.gz`, or the folder `cifar-10-batches-py` that it holds.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import pickle
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onepass.study.errors import StudyError
from onepass.study.folders import DATA_DIR_VARIABLE, data_folders
from onepass.study.task import ACCURACY, Arrays, Task

VALIDATION = 5000


@dataclass(frozen=True)
class Source:
    """Where an archive of this form lies and what it must hash to (MD5, the checksum that its authors publish)."""

    url: str
    archive: str
    archive_md5: str
    folder: str
    train_md5: dict[str, str]
    test_md5: dict[str, str]


# The archive's checksum is on the data set's page; those of the files in it are as torchvision lists them
# (torchvision/datasets/cifar.py).
OFFICIAL = Source(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train_md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test_md5={"test_batch": "40351d587109b95175f43aff81a1287e"},
)


def make_model() -> nn.Module:
    """The tutorials' SimpleCNN, (n, 3, 32, 32) to (n, 10): two 3x3 convolutions, each pooled, and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def make_task(data_dir: Path | None = None, source: Source = OFFICIAL, held_out: int = VALIDATION) -> Task:
    """45,000 images to train on, the last 5000 training images to validate, and the 10,000 test images.

    Pixels are normalised with mean and standard deviation 0.5, to [-1, 1]. If the data are in none of the folders, they
    are downloaded (170 MB) into the first; `StudyError` if they are damaged or cannot be had.
    """
    inputs, targets, test_inputs, test_targets = read(data_dir, source)
    return Task(
        name="cifar10",
        model=make_model,
        train=Arrays(inputs[:-held_out], targets[:-held_out], normalise),
        validation=Arrays(inputs[-held_out:], targets[-held_out:], normalise),
        test=Arrays(test_inputs, test_targets, normalise),
        loss=nn.functional.cross_entropy,
        metric=ACCURACY,
        batch_size=32,
        epochs=10,
        optimizer="adamw",
        lr=1e-4,
        weight_decay=1e-2,
    )


def normalise(images: Tensor) -> Tensor:
    """Bytes of 0 to 255 as float32 in [-1, 1]: scaled to [0, 1], then mean 0.5 and standard deviation 0.5."""
    return (images.to(torch.float32) / 255 - 0.5) / 0.5


def read(data_dir: Path | None, source: Source = OFFICIAL) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (n, 3, 32, 32) as uint8 and labels (n,) as int64, then the same of the test images."""
    fetch = _find(data_dir, source)
    return (*_join(fetch, list(source.train_md5)), *_join(fetch, list(source.test_md5)))


def _find(data_dir: Path | None, source: Source) -> Callable[[str], bytes]:
    folders = data_folders(data_dir)
    for folder in folders:
        batches, archive = folder / source.folder, folder / source.archive
        if folder.name == source.folder:
            batches = folder
        if batches.is_dir():
            return lambda name: _verified_file(batches / name, {**source.train_md5, **source.test_md5}[name])
        if archive.is_file():
            return _members(archive, source)
    return _members(_download(folders[0] / source.archive, source), source)


def _verified_file(path: Path, md5: str) -> bytes:
    if not path.is_file():
        raise StudyError(f"{path} is missing; unpack the whole of {OFFICIAL.archive} ({OFFICIAL.url})")
    raw = path.read_bytes()
    _check(path, hashlib.md5(raw, usedforsecurity=False).hexdigest(), md5)
    return raw


def _members(archive: Path, source: Source) -> Callable[[str], bytes]:
    """A function from a batch's name to its bytes. They are read straight from the archive, so nothing is unpacked."""
    _check(archive, _file_md5(archive), source.archive_md5)
    wanted = {f"{source.folder}/{name}": name for name in (*source.train_md5, *source.test_md5)}
    try:
        with tarfile.open(archive) as tar:
            found = {}
            for member in tar:
                if member.isfile() and member.name in wanted and (stream := tar.extractfile(member)) is not None:
                    found[wanted[member.name]] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise StudyError(f"{archive} cannot be read ({error}); download it again from {source.url}") from error
    missing = [name for name in wanted.values() if name not in found]
    if missing:
        raise StudyError(f"{archive} holds no {source.folder}/{missing[0]}; download it again from {source.url}")
    return found.__getitem__


def _file_md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise StudyError(
            f"{path} is damaged: its MD5 is {found}, not {expected}; download it again from {OFFICIAL.url}"
        )


def _download(path: Path, source: Source) -> Path:
    """Fetches the archive to `path`, which appears there only once it is whole and its checksum is right."""
    print(f"downloading {source.url} to {path}", file=sys.stderr)
    try:
        with urllib.request.urlopen(source.url, timeout=30) as stream:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
                part = Path(folder) / source.archive
                with part.open("wb") as file:
                    shutil.copyfileobj(stream, file)
                found = _file_md5(part)
                if found != source.archive_md5:
                    raise StudyError(
                        f"what {source.url} sent is damaged: its MD5 is {found}, not {source.archive_md5}; try later"
                    )
                part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise StudyError(
            f"cannot download {source.url} to {path} ({error}); put {source.archive} or {source.folder} into a folder "
            f"and name that with --data-dir or ${DATA_DIR_VARIABLE}"
        ) from error
    return path


def _join(fetch: Callable[[str], bytes], names: list[str]) -> tuple[Tensor, Tensor]:
    batches = [_unpickle(fetch(name), name) for name in names]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return torch.from_numpy(images), torch.from_numpy(labels)


def _unpickle(raw: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(raw), encoding="latin1").load()
        images = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(batch["labels"], dtype=np.int64)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise StudyError(f"{name} is not a CIFAR-10 batch ({error}); download it again from {OFFICIAL.url}") from error
    if len(images) != len(labels):
        raise StudyError(f"{name} is not a CIFAR-10 batch: {len(images)} images but {len(labels)} labels")
    return images, labels


def _latin1_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


RECONSTRUCT = np.empty(0).__reduce__()[0]
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1_bytes,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits dicts, lists, numbers, strings, bytes and numpy arrays: a pickle could otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which a data file has no need of") from None
