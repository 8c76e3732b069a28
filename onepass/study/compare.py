"""Which optimizer suits a task? Tune each one alike, run it on fresh paired seeds, and say what may be concluded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from onepass.study.environment import describe_environment
from onepass.study.errors import Interrupted, StudyError
from onepass.study.ledger import Ledger, task_fingerprint, trial_key
from onepass.study.plan import THREADS, Plan, Trial, parse_candidates, parse_grid, seed_ranges
from onepass.study.pool import Pool, cores
from onepass.study.progress import Progress
from onepass.study.report import render
from onepass.study.results import Finished, Results, Subject, tuned_lr
from onepass.study.table import print_results
from onepass.study.task import BatchSize, Task
from onepass.study.training import check

TRIALS = "trials.jsonl"


def make_plan(
    task: Task,
    *,
    optimizers: str,
    lr_grid: str,
    tuning_seeds: int,
    seeds: int,
    first_seed: int = 0,
    epochs: int | None = None,
    batch_size: BatchSize | None = None,
    schedule: str = "cosine",
    warmup: float | None = None,
    weight_decay: float = 0.0,
    device: str = "cpu",
) -> Plan:
    """A plan from what the command line says; epochs and batch size that are None come from the task.

    StudyError, before anything is trained, for whatever the plan could not be run with.
    """
    tuning, final = seed_ranges(tuning_seeds, seeds, first_seed)
    plan = Plan(
        candidates=parse_candidates(optimizers, task, weight_decay),
        grid=parse_grid(lr_grid),
        tuning_seeds=tuning,
        seeds=final,
        epochs=task.epochs if epochs is None else epochs,
        batch_size=task.batch_size if batch_size is None else batch_size,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        device=device,
    )
    check(plan.settings(plan.tuning[-1]))
    return plan


def default_folder(task: Task) -> Path:
    """Where `onepass compare` writes unless told otherwise."""
    return Path("runs") / ("compare-" + re.sub(r"[^\w.-]+", "-", task.name))


def compare(
    task: Task,
    spec: str,
    plan: Plan,
    folder: Path,
    console: Console,
    *,
    workers: int | None = None,
    data_dir: Path | None = None,
    command: str = "onepass compare",
) -> Results:
    """Runs what `folder` does not already hold of `plan`, writes its results there and prints them.

    task, spec, data_dir: the task, and what each worker needs to load it again. workers: parallel processes; None: one
    for each core, or a single one on an accelerator, which they would share. command: what reproduces this.

    StudyError for an unwritable folder, a wrong number of workers, or a worker that was killed; Interrupted for Ctrl-C.
    Finished trials are kept in every case.
    """
    if workers is None:
        workers = cores() if plan.device == "cpu" else 1
    if workers < 1:
        raise StudyError(f"--workers is {workers}; at least 1 must do the work")
    prepare_folder(folder)
    study = _Study(task, spec, plan, Ledger(folder / TRIALS), console, workers, data_dir)
    try:
        finished = study.run()
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped: {study.done} of {plan.total} trials are done and kept in {folder}; "
            "the same command goes on from there"
        ) from None
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    results = Results(
        subject=Subject(spec, task.name, task.metric.name, task.metric.higher_is_better, task.optimum, task.notes),
        plan=plan,
        finished=tuple(finished),
        environment={
            **describe_environment(plan.device),
            "date": now,
            "workers": workers,
            "threads_per_worker": THREADS,
        },
        command=command,
    )
    report = render(results, folder)
    print_results(results, report, console)
    return results


def prepare_folder(folder: Path) -> None:
    """Makes `folder` and tries to write there; StudyError if that cannot be done."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StudyError(f"--out {folder} cannot be written to: {error.strerror}; name another folder") from error


class _Study:
    """The trials of one plan on their way to being done."""

    def __init__(
        self,
        task: Task,
        spec: str,
        plan: Plan,
        ledger: Ledger,
        console: Console,
        workers: int,
        data_dir: Path | None,
    ) -> None:
        self.plan = plan
        self.ledger = ledger
        self.subject = Subject(spec, task.name, task.metric.name, task.metric.higher_is_better)
        self.fingerprint = task_fingerprint(task)
        self.progress = Progress(console, plan.total)
        self.pool = Pool(spec, data_dir, workers)
        self.done = 0

    def run(self) -> list[Finished]:
        """Every trial of the plan, in the plan's order."""
        with self.progress, self.pool:
            tuning = self._stage(self.plan.tuning)
            tuned: dict[str, float] = {}
            for candidate in self.plan.candidates:
                own = [each for each in tuning if each.trial.candidate == candidate]
                tuned[candidate.label] = tuned_lr(own, self.subject)
            return tuning + self._stage(self.plan.finals(tuned))

    def _stage(self, trials: Sequence[Trial]) -> list[Finished]:
        keys = [self._key(trial) for trial in trials]
        missing = [(key, trial) for key, trial in zip(keys, trials, strict=True) if key not in self.ledger]
        self._advance(len(trials) - len(missing), trials[0], kept=True)
        jobs = [(each, self.plan.settings(each[1]), each[1].stage == "final") for each in missing]
        for (key, trial), outcome in self.pool.run(jobs):
            about = {"stage": trial.stage, "optimizer": trial.candidate.label, "lr": trial.lr, "seed": trial.seed}
            self.ledger.add(key, about, outcome)
            self._advance(1, trial)
        return [Finished(trial, self.ledger[key]) for key, trial in zip(keys, trials, strict=True)]

    def _advance(self, count: int, trial: Trial, kept: bool = False) -> None:
        if count:
            self.done += count
            self.progress.advance(count, trial.stage, kept)

    def _key(self, trial: Trial) -> str:
        return trial_key(self.fingerprint, self.plan.settings(trial), evaluate_test=trial.stage == "final")
