"""Commands about what there is: the choices of every group, and pretrained weights."""

import sys
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from pulse_framework.cli.checkpoints import convert_checkpoint, inspect_checkpoint
from pulse_framework.cli.compose import ConfigError, choices
from pulse_framework.cli.options import ConfigDir, planning
from pulse_framework.weights import Card, fetch, read_card, verify

__all__ = ["cards", "list_choices", "weights"]

weights = typer.Typer(help="Pretrained weights: fetched, cached, hash-checked, looked into.", no_args_is_help=True)
weights.command("inspect")(inspect_checkpoint)
weights.command("convert")(convert_checkpoint)


class Kind(StrEnum):
    """What can be listed."""

    GENERATORS = "generators"
    DEGRADATIONS = "degradations"
    PRIORS = "priors"
    SEARCHES = "searches"
    EXPERIMENTS = "experiments"
    WEIGHTS = "weights"

    @property
    def group(self) -> str:
        """The configuration group."""
        return "search" if self is Kind.SEARCHES else self.value.removesuffix("s")


def list_choices(
    kind: Annotated[Kind | None, typer.Argument(help="What to list; everything if left out.")] = None,
    config_dir: ConfigDir = None,
) -> None:
    """List what a configuration can name."""
    for shown in [kind] if kind else list(Kind):
        names = sorted(cards()) if shown is Kind.WEIGHTS else choices(shown.group, config_dir)
        for name in names:
            sys.stdout.write(f"{name}\n" if kind else f"{shown.value}\t{name}\n")


@weights.command("fetch")
def fetch_weights(name: Annotated[str, typer.Argument(help="Name of a card, or path of one.")]) -> None:
    """Fetch weights into the cache, check their hash, and print where they are."""
    with planning():
        card = _card(name)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(card.name, total=None)
            path = fetch(card, progress=lambda done, total: bar.update(task, completed=done, total=total))
    sys.stdout.write(f"{path}\n")


@weights.command("verify")
def verify_weights(name: Annotated[str, typer.Argument(help="Name of a card, or path of one.")]) -> None:
    """Check the hash of cached weights, and print where they are."""
    with planning():
        path = verify(_card(name))
    sys.stdout.write(f"{path}\n")


def cards() -> dict[str, Path]:
    """The project's cards by name: of generators, and of networks whose features are compared."""
    folders = (Path(str(files(package) / "cards")) for package in ("generators", "pulse_framework.features"))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def _card(name: str) -> Card:
    known = cards()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise ConfigError(f"weights {name}: expected one of {', '.join(sorted(known))} or the path of a card, got neither")
    return read_card(path)
