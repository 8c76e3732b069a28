"""Where data are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from onepass.study.errors import StudyError

DATA_DIR_VARIABLE = "ONEPASS_DATA_DIR"


def data_folders(data_dir: Path | None) -> list[Path]:
    """Where to look for data, the first place first; `StudyError` if the folder that was asked for is not there."""
    if data_dir is not None:
        if not data_dir.is_dir():
            raise StudyError(f"--data-dir {data_dir} is not a folder; name the folder that holds the data")
        return [data_dir]
    named = os.environ.get(DATA_DIR_VARIABLE)
    return [*([Path(named)] if named else []), Path("data")]
