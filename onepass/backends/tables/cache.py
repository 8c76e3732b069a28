"""Where kernels are kept between processes."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path


class CannotCompile(RuntimeError):
    """The compiler of a backend does not work here."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``ONEPASS_CACHE_DIR``, or the platform's folder for caches."""
    given = os.environ.get("ONEPASS_CACHE_DIR")
    if given:
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "onepass" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "onepass"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onepass"


def keep(path: Path, content: bytes) -> bool:
    """Write a file of the cache at once or not at all; one warning says where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
    except OSError as error:
        say_once(
            f"compiled kernels cannot be kept in {path.parent} ({error.strerror}): every process compiles its own. "
            "Set ONEPASS_CACHE_DIR to a folder that can be written to"
        )
        return False
    return True


@cache
def say_once(message: str) -> None:
    """Warn, unless the same has been said before."""
    warnings.warn(f"onepass: {message}", stacklevel=2)
