"""The CPU's launches, gathered from an optimizer's tensors."""

from __future__ import annotations

from onepass.backends.cpu.launch import Launch
from onepass.backends.tables import bucket


class Bucket(bucket.Bucket[Launch]):
    """A bucket of CPU tensors."""

    launch = Launch
