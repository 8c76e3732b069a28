"""What the tests of the GPU backend need: the helpers of the kernels' tests, and Triton, which few machines have."""

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "kernels"))

HAS_TRITON = importlib.util.find_spec("triton") is not None


def pytest_collection_modifyitems(items):
    if not HAS_TRITON:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="Triton is not installed: pip install onepass[gpu]"))
