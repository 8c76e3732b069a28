"""The command line: what is asked, handed on to those who do it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import onepass
from onepass.study.errors import StudyError
from onepass.study.plan import DEFAULT_GRID, DEFAULT_OPTIMIZERS
from onepass.study.record import Then
from onepass.study.task import BatchSize, load_task, task_names

app = typer.Typer(
    name="onepass",
    help="Every gradient-descent optimizer, written once, and a fair answer to which one suits your task.",
    add_completion=False,
    rich_markup_mode=None,
)

TaskName = Annotated[str, typer.Argument(help=f"{', '.join(task_names())}, or path/to/task.py:make_task")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the data; else $ONEPASS_DATA_DIR, then ./data.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]


@app.command()
def train(
    task: TaskName = "digits",
    optimizer: Annotated[str | None, typer.Option(help="Its name, see onepass list.  [default: the task's]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.  [default: the task's, or the optimizer's]")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[default: the task's, or the optimizer's]")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant, step, cosine or onecycle.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps over which lr rises.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.  [default: the task's]")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Examples in a batch, or full.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides weights, order and dropout.  [default: 0]")] = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.  [default: as many as torch takes]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A hyperparameter: NAME=VALUE.")] = None,
    then: Annotated[str | None, typer.Option(help="Optimizer to go on with once the first stops improving.")] = None,
    then_lr: Annotated[float | None, typer.Option(help="Its learning rate.")] = None,
    then_weight_decay: Annotated[float | None, typer.Option(help="Its weight decay.")] = None,
    then_set: Annotated[list[str] | None, typer.Option(help="A hyperparameter of it: NAME=VALUE.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without improvement before --then.  [default: 3]")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Replaced if there.  [default: runs/TASK/checkpoint.pt]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, with its settings.")] = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Write scalars for TensorBoard to this folder.")] = None,
    framework: Annotated[
        str | None,
        typer.Option(help="airfoil in numpy, torch, jax, tensorflow, paddle, mxnet (with commas), or all: one table."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="With --framework: runs of each form.  [default: 20]")] = None,
    environments: Annotated[
        Path | None, typer.Option(help="With --framework: a virtual environment for each.  [default: .venvs]")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="With --framework: the JSON.  [default: runs/airfoil-frameworks.json]")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Train one model with one optimizer; or, with --framework, the textbook's experiment in other frameworks."""
    given: dict[str, Any] = {
        "optimizer": optimizer,
        "lr": lr,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup": warmup,
        "epochs": epochs,
        "batch_size": _batch_size(batch_size),
        "seed": seed,
        "device": device,
        "threads": threads,
        "options": set_ or None,
    }
    around = {"seeds": seeds, "environments": environments, "path": record}
    if framework is not None:
        second = {"then": then, "then_lr": then_lr, "then_weight_decay": then_weight_decay, "then_set": then_set}
        rest = {"patience": patience, "checkpoint": checkpoint, "resume": resume or None, "tensorboard": tensorboard}
        _train_in_frameworks(task, framework, {**given, **second, **rest}, around, data_dir)
        return
    for flag, value in (("--seeds", seeds), ("--environments", environments), ("--record", record)):
        if value is not None:
            raise StudyError(f"{flag} {value} is about other frameworks; name them with --framework")

    from onepass.study import train as training
    from onepass.study.optimizers import read_options

    loaded = load_task(task, data_dir)
    path = checkpoint or training.default_checkpoint(loaded)
    given["options"] = read_options(set_) if set_ else None
    given["then"] = _then(then, then_lr, then_weight_decay, read_options(then_set or [], "--then-set"), patience)
    settings = training.settings_for(
        loaded, {name: value for name, value in given.items() if value is not None}, path, resume
    )
    training.run(loaded, settings, Console(), checkpoint=path, resume=resume, tensorboard=tensorboard)


def _train_in_frameworks(
    task: str, framework: str, refused: dict[str, Any], given: dict[str, Any], data_dir: Path | None
) -> None:
    from onepass.study.frameworks import together

    if task.lower() != "airfoil":
        raise StudyError(f"--framework is for the task airfoil, not {task!r}: onepass train airfoil --framework all")
    flags = {"options": "set"}
    for name, value in refused.items():
        if value is not None:
            flag = flags.get(name, name).replace("_", "-")
            raise StudyError(
                f"--{flag} does not go with --framework, which runs the textbook's experiment as it stands; "
                f"leave it out, or leave out --framework to train with torch"
            )
    settings = {name: value for name, value in given.items() if value is not None}
    together.run_all(together.names_of(framework), Console(), data_dir=data_dir, **settings)


def _batch_size(text: str | None) -> BatchSize | None:
    if text is None or text == "full":
        return text
    try:
        return int(text)
    except ValueError:
        raise StudyError(f"--batch-size {text!r} is neither a positive integer nor full") from None


def _then(
    name: str | None, lr: float | None, weight_decay: float | None, options: tuple[Any, ...], patience: int | None
) -> Then | None:
    if name is not None:
        return Then(name, lr, weight_decay, options, **({} if patience is None else {"patience": patience}))
    refused = {
        "--then-lr": lr,
        "--then-weight-decay": weight_decay,
        "--then-set": options or None,
        "--patience": patience,
    }
    for flag, value in refused.items():
        if value is not None:
            raise StudyError(f"{flag} {value} is about a second optimizer; name it with --then")
    return None


@app.command()
def compare(
    task: TaskName = "digits",
    optimizers: Annotated[
        str, typer.Option(help="NAME[:OPTION=VALUE[;OPTION=VALUE...]],..., or all.")
    ] = DEFAULT_OPTIMIZERS,
    lr_grid: Annotated[str, typer.Option(help="Learning rates that every optimizer is tuned over.")] = DEFAULT_GRID,
    tuning_seeds: Annotated[int, typer.Option(help="Tuning runs at each learning rate.")] = 3,
    seeds: Annotated[int, typer.Option(help="Final runs of each optimizer, on seeds that tuning never saw.")] = 10,
    seed: Annotated[int, typer.Option(help="The first of the final seeds.")] = 0,
    schedule: Annotated[str, typer.Option(help="constant, step, cosine or onecycle.")] = "cosine",
    warmup: Annotated[float | None, typer.Option(help="Share of the steps over which lr rises.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.  [default: the task's]")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Examples in a batch, or full.  [default: the task's]")] = None,
    weight_decay: Annotated[float, typer.Option(help="One for all, in each class's own form.")] = 0.0,
    workers: Annotated[int | None, typer.Option(help="Parallel processes.  [default: the number of cores]")] = None,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: runs/compare-TASK]")] = None,
    data_dir: DataDir = None,
) -> None:
    """Find the optimizer that suits a task: tune each alike, rerun on fresh seeds, report."""
    from onepass.study import compare as comparison

    loaded = load_task(task, data_dir)
    plan = comparison.make_plan(
        loaded,
        optimizers=optimizers,
        lr_grid=lr_grid,
        tuning_seeds=tuning_seeds,
        seeds=seeds,
        first_seed=seed,
        epochs=epochs,
        batch_size=_batch_size(batch_size),
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        device=device or "cpu",
    )
    comparison.compare(
        loaded,
        task,
        plan,
        out or comparison.default_folder(loaded),
        Console(),
        workers=workers,
        data_dir=data_dir,
        command=shlex.join(["onepass", *sys.argv[1:]]),
    )


@app.command("list")
def list_rules() -> None:
    """List every optimizer."""
    console = Console()
    if not console.is_terminal:
        # A pipe has no width to keep to: each row stays on its line.
        console.width = 200
    table = Table(box=None, header_style="bold")
    for column in ("name", "optimizer", "state", "bytes/parameter", "lr", "paper"):
        table.add_column(column, justify="right" if column in ("bytes/parameter", "lr") else "left")
    for each in onepass.describe():
        states = ", ".join(each.states)
        table.add_row(each.name, each.title, states, f"{each.bytes_per_parameter:.3g}", f"{each.lr:g}", each.paper)
    console.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="An optimizer, see onepass list.")],
    latex: Annotated[bool, typer.Option("--latex", help="As LaTeX.")] = False,
    kernel: Annotated[bool, typer.Option("--kernel", help="The source of the kernel instead.")] = False,
    backend: Annotated[str, typer.Option(help="Whose kernel: cpu, or triton for GPUs.")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="What the kernel stores: float32, float64, bfloat16, float16.")
    ] = "float32",
) -> None:
    """Show an optimizer's equations, or the kernel that runs."""
    try:
        kernel = kernel or backend != "cpu"
        source = onepass.kernel_source(name, dtype, backend=backend) if kernel else onepass.equations(name, latex=latex)
        typer.echo(source)
    except ValueError as error:
        raise StudyError(str(error)) from error


@app.command()
def doctor() -> None:
    """Show which backend serves which tensors here, and why, and time a step."""
    from onepass.doctor import examine, time_steps

    console = Console(soft_wrap=True)
    facts = Table(box=None, show_header=False)
    for heading, finding in examine():
        facts.add_row(f"[bold]{heading}[/bold]", finding)
    console.print(facts)
    times = Table(box=None, header_style="bold")
    for column in ("AdamW step", "onepass", "torch fused"):
        times.add_column(column, justify="left" if column == "AdamW step" else "right")
    for name, ours, theirs in time_steps():
        times.add_row(name, f"{ours:.3f} ms", f"{theirs:.3f} ms")
    console.print(times)
