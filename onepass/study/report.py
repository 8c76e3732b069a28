"""From results to files: `results.json`, the pictures, and one page that needs nothing beside itself."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from onepass.study.errors import StudyError
from onepass.study.figures import PICTURES, png
from onepass.study.results import Results, remarks, show, show_gap, show_interval, verdict_sentence

RESULTS, REPORT = "results.json", "report.html"


def render(results: Results, folder: Path) -> Path:
    """Writes everything into `folder`, each file whole or not at all, and returns the path of the page."""
    write(folder / RESULTS, json.dumps(results.to_json(), indent=1, allow_nan=False).encode())
    pictures = {name: png(picture, results) for name, picture in PICTURES.items()}
    for name, content in pictures.items():
        write(folder / name, content)
    page = folder / REPORT
    write(page, to_html(results, pictures).encode())
    return page


def load(folder: Path) -> Results:
    """The results that `render` wrote into `folder`; StudyError if there are none."""
    path = folder / RESULTS
    try:
        return Results.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise StudyError(f"{path} does not exist; run onepass compare first") from None


def to_html(results: Results, pictures: dict[str, bytes]) -> str:
    """The page, its pictures inside it; `pictures` maps the names in `PICTURES` to PNG bytes."""
    environment = Environment(
        loader=PackageLoader("onepass.study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(show=show, show_gap=show_gap, show_interval=show_interval)
    return environment.get_template("report.html.j2").render(
        results=results,
        subject=results.subject,
        plan=results.plan,
        rows=results.rows,
        verdict=results.verdict,
        sentence=verdict_sentence(results),
        remarks=remarks(results),
        facts=facts(results),
        pictures=[(picture, base64.b64encode(pictures[name]).decode()) for name, picture in PICTURES.items()],
    )


def facts(results: Results) -> dict[str, str]:
    """How the comparison was measured, as a list of terms and what they were."""
    plan, environment = results.plan, results.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    hardware = [environment["processor"], f"{environment['cores']} cores", environment["system"]]
    diverged = sum(each.outcome.diverged for each in results.finished)
    size = "the data loader's own batches" if plan.batch_size is None else f"batch size {plan.batch_size}"
    return {
        "Candidates": f"{len(plan.candidates)}, with the defaults of their classes except where a name says otherwise",
        "Tuning": f"{len(plan.grid)} learning rates for every candidate ({', '.join(f'{lr:.3g}' for lr in plan.grid)}) "
        f"on {_seeds(plan.tuning_seeds)}; chosen by {results.subject.metric} on the validation split at the end of the "
        "schedule, never at the best epoch",
        "Final runs": f"the best setting of each on {_seeds(plan.seeds)}, which tuning never saw; within a seed every "
        "candidate starts from the same weights and sees the same batches; judged on the test split",
        "Training": f"{plan.epochs} epochs, {size}, {plan.schedule} schedule"
        + (f", warm-up over {plan.warmup:.0%} of the steps" if plan.warmup else ""),
        "Weight decay": f"{plan.weight_decay:g} for all, in the form that each class gives a plain number: "
        "decoupled or added to the gradient (L2), see onepass show",
        "Verdict": f"median of paired differences to the leader, bootstrap, {results.verdict.confidence:.0%} "
        f"together: {results.verdict.level:.2%} for each of {len(plan.candidates) - 1} comparisons (Bonferroni)",
        "Diverged": f"{diverged} of {len(results.finished)} runs; none was dropped: one of the final stage "
        "ranks below every number",
        "Hardware": ", ".join([*hardware, *([environment["accelerator"]] if environment["accelerator"] else [])]),
        "Workers": f"{environment['workers']} parallel processes of one thread each, device {plan.device}; they share "
        "the machine: times compare the candidates and are not the best this machine can do",
        "Versions": versions,
        "Date": environment["date"],
    }


def _seeds(seeds: tuple[int, ...]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({seeds[0]} to {seeds[-1]})"


def write(path: Path, content: bytes) -> None:
    """Replaces `path` with `content` in one move, so that no reader ever sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes files for the owner's eyes only; a report is as public as its folder.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
