"""Where a study ran: what a reader must know to repeat it or to doubt it."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def describe_environment(device: str) -> dict[str, Any]:
    """Versions and hardware, as plain JSON types."""
    return {
        "versions": versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None,
    }


def versions() -> dict[str, str]:
    """The versions of all that computes; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy", "numba", "onepass"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _processor() -> str:
    # `platform.processor` is empty on most Linux systems, where the kernel lists the model by its retail name.
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
