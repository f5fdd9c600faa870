"""What the commands share: options, overrides, and how errors end a command."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from pulse_framework.cli.lines import JsonLines, LogJson

__all__ = [
    "Allow",
    "ConfigDir",
    "Degradation",
    "Device",
    "Factor",
    "Generator",
    "LogJson",
    "MaxPixels",
    "Out",
    "Overwrite",
    "Profiled",
    "Quiet",
    "Seed",
    "example_photo",
    "json_line",
    "planning",
    "say",
    "split_overrides",
]

Out = Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")]
Generator = Annotated[str | None, typer.Option("--generator", help="Name of a generator; see `pulse list generators`.")]
Degradation = Annotated[str | None, typer.Option("--degradation", help="Name of a degradation; see `pulse list degradations`.")]
Factor = Annotated[str | None, typer.Option("--factor", help="Down-scale, such as 8 or 32/5; inferred if left out.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the run; 0 is a seed.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results of other settings.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")]
Profiled = Annotated[bool, typer.Option("--profile", help="Write where the time went: profile.txt and a Chrome trace.")]
MaxPixels = Annotated[
    int | None, typer.Option("--max-pixels", min=1, help="Of the largest photo that is read or written; 100 million if left out.")
]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="Folder of your own configuration groups.")]
Allow = Annotated[
    list[str] | None, typer.Option("--allow", help="Package whose classes a configuration may name; may be repeated.")
]

_KEY = r"[A-Za-z_][\w./@\-\[\]]*"
_OVERRIDE = re.compile(rf"\+{{0,2}}{_KEY}=|~{_KEY}(=|$)")


def split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Inputs, and overrides (``KEY=VALUE``, ``+KEY=VALUE``, ``~KEY``); an existing file is an input whatever its name."""
    overrides = [text for text in arguments if _OVERRIDE.match(text) and not Path(text).exists()]
    return [text for text in arguments if text not in overrides], overrides


def example_photo(name: str = "face.png") -> Path:
    """A bundled picture, ``face.png`` or the whole ``portrait.jpg``: inside the installed package, or beside it in a checkout."""
    inside = Path(str(files("pulse_framework")))
    photo = inside / "examples" / name
    return photo if photo.exists() else inside.parent / "examples" / name


def json_line(**fields: object) -> str:
    """One JSON object on one line."""
    return json.dumps(fields, ensure_ascii=False)


def say(text: str, level: str = "info", **fields: object) -> None:
    """Tell the user something on the standard error stream, in one write; under ``--log-json`` with level and fields."""
    if isinstance(sys.stderr, JsonLines):
        sys.stderr.emit(level, text, **fields)
    else:
        sys.stderr.write(text + "\n")


@contextlib.contextmanager
def planning() -> Iterator[None]:
    """Turn a refusal into one line on the standard error stream and exit status 2."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        say(f"pulse: {' '.join(str(error).split())}", "error")
        raise typer.Exit(2) from error
