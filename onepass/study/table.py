"""The results of a comparison for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onepass.study.results import Results, remarks, show, show_interval, verdict_sentence


def print_results(results: Results, report: Path, console: Console) -> None:
    """The ranking, the verdict, the line to paste and where the report is."""
    console.print(ranking_table(results, roomy=console.width >= 100))
    console.print()
    console.print(Text(verdict_sentence(results), style="bold"))
    for remark in remarks(results):
        console.print(Text(remark))
    if results.code:
        console.print(Text(f"\n{results.code}", style="cyan"), soft_wrap=True)
    console.print(Text(f"\nreport: {report}"), soft_wrap=True)


def ranking_table(results: Results, roomy: bool = True) -> Table:
    """One row for each candidate, best first; ≈ marks those that cannot be told apart from the leader."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3 if roomy else 1, 0, 0))
    table.add_column("")
    table.add_column("optimizer", overflow="fold")
    metric = f"test\n{results.subject.metric}"
    for title in ("lr", metric, "95 %\ninterval", "test\nloss", "train\ns", "ms per\nstep", "diverged"):
        table.add_column(title, justify="right", no_wrap=True)
    verdict = results.verdict
    several = verdict.enough_seeds and len(verdict.group) > 1
    for place, row in enumerate(results.rows, start=1):
        table.add_row(
            f"{place} ≈" if several and row.in_group else str(place),
            row.label,
            f"{row.lr:.3g}" + ("*" if row.edge else ""),
            show(row.median),
            show_interval(row.low, row.high),
            show(row.test_loss),
            f"{row.seconds:.2f}",
            f"{row.step_ms:.3f}",
            f"{row.diverged}/{len(row.metrics)}",
            style="" if row.in_group else "dim",
        )
    return table
