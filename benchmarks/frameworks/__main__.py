"""``python -m benchmarks.frameworks jax`` measures, in JAX's environment; ``--readme`` tells what was measured last.

Each file beside this one measures one framework: ``PACKAGES`` names what its figures depend on, and ``measures`` is a
list of functions that each return results.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from benchmarks.runner import environment, write

ROOT = Path(__file__).parents[2]
FRAMEWORKS = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
RESULTS = ROOT / "benchmarks" / "results" / "frameworks"
BEGIN, END = "<!-- frameworks table: begin -->", "<!-- frameworks table: end -->"


def measure(framework: str, only: str) -> None:
    """Run a framework's measures whose name has ``only`` in it, print each result, and keep those of a whole run."""
    module = importlib.import_module(f"benchmarks.frameworks.{framework}")
    results = []
    for function in module.measures:
        if only in function.__name__:
            for result in function():
                print(row({"framework": framework, **vars(result), "reached": result.reached}), flush=True)
                results.append(result)
    if not only:
        where = RESULTS / f"{framework}.jsonl"
        where.unlink(missing_ok=True)
        write(results, where, ("onepass", "numpy", *module.PACKAGES))


def row(r: dict[str, Any]) -> str:
    mark = {True: " ✓", False: " **missed**", None: ""}[r["reached"]]
    target = "" if r["target"] is None else f"≤ {r['target']:g}{mark}"
    ratio = f"{r['ratio']:.2f} ({r['low']:.2f}-{r['high']:.2f})"
    ours, theirs = (f"{r[side]:.3g} {r['unit']}" for side in ("ours", "theirs"))
    return f"| {r['measure']} | {ours} | {r['against']}, {theirs} | {ratio} | {target} |"


def table() -> str:
    """What was measured last in each framework, as a Markdown table with the machine and the date below it."""
    found = [json.loads(line) for path in sorted(RESULTS.glob("*.jsonl")) for line in path.read_text().splitlines()]
    if not found:
        raise SystemExit("nothing was measured yet: run make bench-frameworks")
    lines = ["| measure | onepass | against | ratio (quartiles) | must reach |", "|---|---:|---|---:|---|"]
    lines += map(row, found)
    known = (
        *environment(()),
        "measure",
        "against",
        "ours",
        "theirs",
        "ratio",
        "low",
        "high",
        "target",
        "unit",
        "reached",
    )
    releases = {name: r[name] for r in found for name in r if name not in known and r[name] and name != "onepass"}
    e = found[-1]
    lines += [
        "",
        f"{e['cpu']}, {e['cores']} cores, {e['system']}; Python {e['python']}, "
        + ", ".join(f"{name} {release}" for name, release in sorted(releases.items()))
        + f"; {e['date']}, commit {e['commit']}, `make bench-frameworks`. Medians of interleaved rounds.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frameworks", description=__doc__)
    parser.add_argument("framework", nargs="?", choices=FRAMEWORKS)
    parser.add_argument("--only", default="", help="measures whose name has this in it; their results are not kept")
    parser.add_argument("--readme", action="store_true", help="put what was measured last into the README")
    given = parser.parse_args()
    if given.framework:
        measure(given.framework, given.only)
    if given.readme:
        readme = ROOT / "README.md"
        before, _, rest = readme.read_text().partition(BEGIN)
        readme.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")
    elif not given.framework:
        print(table())


if __name__ == "__main__":
    main()
