"""The results of a comparison for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onepass.study.results import Results, edge_remark, show, verdict_sentence


def print_results(results: Results, report: Path, console: Console) -> None:
    """The ranking, the verdict, the line to paste and where the report is."""
    best = results.rows[0]
    console.print(ranking_table(results))
    console.print()
    console.print(Text(verdict_sentence(results), style="bold"))
    if remark := edge_remark(results):
        console.print(Text(remark))
    console.print(Text("\n" + best.candidate.code(best.lr, results.plan.weight_decay), style="cyan"), soft_wrap=True)
    console.print(Text(f"\nreport: {report}"), soft_wrap=True)


def ranking_table(results: Results) -> Table:
    """One row for each candidate, best first; ≈ marks those that cannot be told apart from the leader."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column("optimizer")
    for title in (
        "lr",
        f"test {results.subject.metric}",
        "95 % interval",
        "test loss",
        "seconds",
        "ms/step",
        "diverged",
    ):
        table.add_column(title, justify="right")
    verdict = results.verdict
    several = verdict.enough_seeds and len(verdict.group) > 1
    for place, row in enumerate(results.rows, start=1):
        table.add_row(
            "≈" if several and row.in_group else str(place),
            row.label,
            f"{row.lr:.3g}" + ("*" if row.edge else ""),
            show(row.median),
            f"{show(row.low)} – {show(row.high)}",
            show(row.test_loss),
            f"{row.seconds:.2f}",
            f"{row.step_ms:.3f}",
            f"{row.diverged} of {len(row.metrics)}",
            style="" if row.in_group else "dim",
        )
    return table
