"""Plain tables, for what is printed where rich may not be there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Text in columns under their titles: numbers to the right, with thousands set apart, everything else to the left.

    >>> print(table(["name", "count"], [["a", 1000], ["bcd", 2]]))
    name  count
    a     1,000
    bcd       2
    """
    numeric = [all(isinstance(row[i], int) for row in rows) for i in range(len(titles))]
    cells = [list(titles), *([f"{x:,}" if isinstance(x, int) else str(x) for x in row] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(titles))]
    lines = (
        "  ".join(f"{x:>{w}}" if right else f"{x:<{w}}" for x, w, right in zip(line, widths, numeric, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)
