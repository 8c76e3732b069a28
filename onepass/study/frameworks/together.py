"""Every framework side by side: each in a process, and if need be an environment, of its own; one table, one record."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import onepass
from onepass.study.airfoil import least_squares, read
from onepass.study.errors import StudyError
from onepass.study.frameworks.experiment import NAMES

ENVIRONMENTS = Path(".venvs")
RECORD = Path("runs") / "airfoil-frameworks.json"
SEEDS = 20

# What a framework's file imports besides NumPy.
_IMPORTS = {"jax": ("jax", "optax"), "tensorflow": ("tensorflow", "keras")}
_INSTALL = {
    "jax": "jax optax",
    "tensorflow": "tensorflow keras",
    "paddle": "paddlepaddle",
    "mxnet": "'mxnet==1.9.1' 'numpy<1.24'",
}


def names_of(text: str) -> list[str]:
    """The frameworks that ``--framework`` asks for: ``all``, or names with commas between them.

    Raises:
        StudyError: one of the names is unknown.
    """
    if text == "all":
        return list(NAMES)
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in NAMES:
            raise StudyError(f"unknown framework {name!r} in --framework; choose from {', '.join(NAMES)}, or all")
    return names


def run_all(
    names: Sequence[str],
    console: Console,
    *,
    seeds: int = SEEDS,
    data_dir: Path | None = None,
    environments: Path = ENVIRONMENTS,
    path: Path = RECORD,
) -> dict[str, Any]:
    """Run the experiment in each framework, print the table, write the record, and return it.

    Args:
        names: some of `NAMES`.
        console: where the table goes.
        seeds: runs of each form.
        data_dir: as `onepass train` takes it.
        environments: the folder that holds one virtual environment for each framework; one that it lacks is looked for
            where this process runs.
        path: where the record goes.

    Raises:
        StudyError: the data are missing, none of the frameworks is installed, or one failed; what the others found is
            printed and written all the same.
    """
    if seeds < 1:
        raise StudyError(f"--seeds {seeds} is not a positive number")
    optimum = least_squares(*read(data_dir))
    _make_room(path)
    results: dict[str, Any] = {"optimum": optimum, "seeds": seeds, "frameworks": {}}
    for name in names:
        with console.status(f"airfoil in {name}, {seeds} seeds"):
            results["frameworks"][name] = _run_one(name, seeds, data_dir, environments)
    path.write_text(json.dumps(results, indent=1))
    found = results["frameworks"]
    if not console.is_terminal:
        # A pipe has no width to keep to.
        console.width = 200
    seen = f"airfoil, medians of {seeds} seeds; best possible half mse {optimum:.5f}"
    console.print(seen, markup=False, highlight=False, soft_wrap=True)
    console.print(table(results, roomy=console.width >= 100))
    for name, each in found.items():
        for line in (each.get("missing"), each.get("failed")):
            if line:
                console.print(f"{name}: {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"record: {path}", markup=False, highlight=False, soft_wrap=True)
    failed = [name for name, each in found.items() if "failed" in each]
    if failed:
        raise StudyError(f"{', '.join(failed)} failed; what they said is above")
    if not any("rows" in each for each in found.values()):
        raise StudyError(f"none of {', '.join(names)} is installed; make test-frameworks builds .venvs")
    return results


def _make_room(path: Path) -> None:
    """See to it, before the work and not after it, that the record can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise StudyError(f"cannot write to --record {path} ({error.strerror or error}); name another place") from error


def table(results: Mapping[str, Any], roomy: bool = True) -> Table:
    """One row for each form of each framework: the median over the seeds and, with room for them, the quartiles."""
    made = Table(box=None, header_style="bold", padding=(0, 2, 0, 0) if roomy else (0, 1, 0, 0), pad_edge=False)
    for column in ("framework", "optimizer", "by"):
        made.add_column(column, no_wrap=True)
    for column in ("half mse", *(["quartiles"] if roomy else []), "gap", "s/epoch"):
        made.add_column(column, justify="right", no_wrap=True)
    for name, each in results["frameworks"].items():
        if "rows" not in each:
            made.add_row(name, "failed" if "failed" in each else "not installed", style="dim")
        for i, row in enumerate(each.get("rows", ())):
            loss = statistics.median(row["losses"])
            made.add_row(
                each["title"] if i == 0 else "",
                f"{row['optimizer']} {row['style']}",
                row["by"],
                f"{loss:.5f}",
                *([_quartiles(row["losses"])] if roomy else []),
                f"{loss - results['optimum']:.5f}",
                f"{statistics.median(row['seconds_per_epoch']):.4f}",
            )
    return made


def _quartiles(losses: Sequence[float]) -> str:
    if len(losses) < 2:
        return ""
    low, _, high = statistics.quantiles(losses, method="inclusive")
    return f"{low:.4f}-{high:.4f}"


def _run_one(name: str, seeds: int, data_dir: Path | None, environments: Path) -> dict[str, Any]:
    python = _interpreter(name, environments)
    if python is None:
        return {
            "missing": f"not installed: make test-frameworks builds {environments / name}; "
            f"or pip install {_INSTALL.get(name, name)}"
        }
    # The package that runs here serves there too: a framework's environment need not have it installed.
    here = str(Path(onepass.__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        command = [python, "-m", "onepass.study.frameworks", name, "--seeds", str(seeds), "--record", str(path)]
        command += ["--data-dir", str(data_dir)] if data_dir else []
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return {"failed": f"{python} stopped: {said[-1].removeprefix('onepass: ')}"}
        return json.loads(path.read_text())


def _interpreter(name: str, environments: Path) -> str | None:
    """The interpreter that has this framework, or None."""
    for folder in ("bin", "Scripts"):
        path = environments / name / folder / "python"
        if path.exists():
            # Not resolved: a virtual environment's interpreter is a link that knows its environment by where it stands.
            return str(path.absolute())
    needed = _IMPORTS.get(name, (name,))
    return sys.executable if all(importlib.util.find_spec(module) for module in needed) else None
