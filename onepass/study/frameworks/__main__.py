"""The experiment in one framework, in this process: ``python -m onepass.study.frameworks jax``."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from onepass.study.airfoil import least_squares, read
from onepass.study.errors import StudyError
from onepass.study.frameworks.experiment import NAMES, Row, load, record, run


def main() -> int:
    """Print a line for each form, and write the record if asked to."""
    parser = argparse.ArgumentParser(prog="python -m onepass.study.frameworks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--data-dir", type=Path, help="folder of the data; else $ONEPASS_DATA_DIR, then ./data")
    parser.add_argument("--seeds", type=int, default=20, help="runs of each form (default: 20)")
    parser.add_argument("--record", type=Path, help="where to write the results as JSON")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"--seeds {given.seeds} is not a positive number")
    try:
        optimum = least_squares(*read(given.data_dir))
        framework = load(given.name)
        rows: list[Row] = []
        for row in run(framework, range(given.seeds), given.data_dir):
            rows.append(row)
            print(_line(row, optimum), flush=True)
    except StudyError as error:
        print(f"onepass: {error}", file=sys.stderr)
        return 2
    if given.record:
        given.record.write_text(json.dumps(record(framework, rows, range(given.seeds), given.data_dir), indent=1))
    return 0


def _line(row: Row, optimum: float) -> str:
    loss = statistics.median(row.losses)
    form = row.form
    return (
        f"{form.optimizer:4} {form.style:12} by {form.by:18}  half mse {loss:.5f}  gap {loss - optimum:.5f}  "
        f"{statistics.median(row.seconds):.4f} s an epoch"
    )


if __name__ == "__main__":
    sys.exit(main())
