"""The console entry, beside the package: importing anything of `onepass` loads torch, and this must come before it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Runs the command line; a Ctrl-C while torch still loads ends it with one line and exit code 130."""
    # Threads that wait for one another by spinning make a small model ten times slower where the machine has other
    # work; so few turns cost some per cent where it has none. Torch's OpenMP library reads it once, when it is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # An exception would not do: one raised inside an import can be caught and dropped there.
        signal.signal(signal.SIGINT, _leave)
    from onepass.__main__ import main

    signal.signal(signal.SIGINT, before)
    return main()


def _leave(number: int, frame: FrameType | None) -> None:
    print("onepass: interrupted", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
