"""Whether this run is the one through Triton's interpreter."""

import os

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
only = pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1: make test runs it so")
never = pytest.mark.skipif(INTERPRETED, reason="compiles, which TRITON_INTERPRET=1 does not")
