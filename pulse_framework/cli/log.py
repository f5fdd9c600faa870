"""Commands about tracking: finished runs told to W&B or TensorBoard afterwards."""

import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pulse_framework.cli.options import planning, say
from pulse_framework.runtime import CURVES, check_run, push, tensorboard_logger, wandb_logger

__all__ = ["log"]

log = typer.Typer(help="Tracking of runs that are over.", no_args_is_help=True)


class Target(StrEnum):
    """Where a run can be pushed."""

    WANDB = "wandb"
    TENSORBOARD = "tensorboard"


@log.callback()
def _several() -> None:
    """Tracking of runs that are over."""


@log.command("push")
def push_run(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Output folder of a run.")],
    to: Annotated[Target, typer.Option("--to", help="wandb or tensorboard.")] = Target.WANDB,
    project: Annotated[str, typer.Option("--project", help="Project in W&B.")] = "pulse",
    group: Annotated[str | None, typer.Option("--group", help="Group in W&B.")] = None,
    artifacts: Annotated[bool, typer.Option("--artifacts", help="Store results and latents in W&B, too.")] = False,
) -> None:
    """Log a finished run: settings, answers, table, grid; film and curves if it had a logger."""
    with planning():
        check_run(folder)
        own = secrets.token_hex(4)  # a run of its own: the folder's may be there already
        made = (
            tensorboard_logger(str(folder))
            if to is Target.TENSORBOARD
            else wandb_logger(str(folder), project=project, group=group, artifacts=artifacts, run_id=own)
        )
        count = push(folder, made)
    curves = "" if (folder / CURVES).exists() else "; no curves and no film, which only runs with a logger keep"
    say(f"pulse: logged {count} answers of {folder} to {to.value}{curves}")
