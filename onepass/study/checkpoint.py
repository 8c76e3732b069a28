"""Checkpoints: written whole or not at all, read without running any code, and refused unless they fit."""

from __future__ import annotations

import glob
import os
import random
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onepass.study.errors import StudyError
from onepass.study.record import Settings

FORMAT = "onepass checkpoint 1"


def prepare(path: Path, resume: bool) -> None:
    """Makes sure, before any training, that `path` can be written and, if it is there, holds a checkpoint.

    `StudyError` if its folder cannot be made or written to, or if writing there would replace some other file.
    """
    if resume or path.exists():
        read(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        _sweep(path)
    except OSError as error:
        raise StudyError(
            f"cannot write a checkpoint to {path} ({error.strerror or error}); name another place with --checkpoint"
        ) from error


def _sweep(path: Path) -> None:
    """Removes what runs that were killed in the middle of writing have left beside `path`."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        number = part.name.removesuffix(".part").rpartition(".")[2]
        if number.isdigit() and not _lives(int(number)):
            part.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        # It is another user's, or the system cannot tell.
        return True
    return True


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Puts the checkpoint at `path` in one step, so that a reader finds the old one or the new one, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StudyError(f"cannot write the checkpoint {path} ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """What `write` put there; `StudyError` if there is no such file or it is damaged or something else."""
    if not path.is_file():
        raise StudyError(f"no checkpoint {path} to resume from; leave out --resume to start anew")
    try:
        # Torch does not look at the sums that it writes: a flipped bit in a weight would be loaded.
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)
        state = torch.load(path, map_location="cpu", weights_only=True)
    # A file that is damaged, or not torch's at all, can fail anywhere inside torch and pickle.
    except Exception as error:
        raise StudyError(
            f"{path} is damaged, or no checkpoint of onepass ({type(error).__name__}); move it away to start anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise StudyError(f"{path} is no checkpoint of this version of onepass; move it away to start anew")
    return state


def read_settings(path: Path) -> Settings:
    """The settings of the run whose checkpoint is at `path`."""
    return Settings.from_json(read(path)["settings"])


def check_same_run(path: Path, state: Mapping[str, Any], task: str, settings: Settings) -> None:
    """`StudyError` that names the difference unless `settings` continue the run that the checkpoint is of.

    More epochs are no difference where no step's learning rate depends on how many there are.
    """
    if state["task"] != task:
        raise StudyError(f"{path} is of the task {state['task']!r}, not {task!r}; name another --checkpoint")
    saved, now = _flat(state["settings"]), _flat(settings.to_json())
    if settings.schedule == "constant" and not settings.warmup and now["epochs"] > saved["epochs"]:
        saved["epochs"] = now["epochs"]
    for name in sorted(saved.keys() | now.keys()):
        if saved.get(name) != now.get(name):
            why = "; only a constant schedule can be prolonged" if name == "epochs" else ""
            raise StudyError(
                f"{path} was trained with {name} {saved.get(name)}, not {now.get(name)}{why}; "
                "resume with the same settings, or leave out --resume"
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every global random number generator that a model, its data or its loss may draw from."""
    # numpy's legacy generator is the one that users' data sets draw from behind our back.
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(*_index(device)),
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
    }


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Sets every global random number generator to where `random_state` found it."""
    torch.set_rng_state(state["torch"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state["device"], *_index(device))
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002


def _index(device: torch.device) -> tuple[torch.device, ...]:
    # Apple's GPU is the only one of its kind, and its functions take no device.
    return () if device.type == "mps" else (device,)


def seed_everything(seed: int) -> None:
    """Sets every global random number generator from one seed in [0, 2³²)."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
