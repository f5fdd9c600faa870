"""The command that makes degraded images from good ones."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from omegaconf import DictConfig, OmegaConf

from pulse_framework.cli.compose import ConfigError, build_as, load
from pulse_framework.cli.options import (
    Allow,
    ConfigDir,
    Degradation,
    Factor,
    Out,
    Overwrite,
    Quiet,
    Seed,
    planning,
    say,
    split_overrides,
)
from pulse_framework.images import read_image, write_png
from pulse_framework.interfaces import Degradation as DegradationInterface
from pulse_framework.runtime import Rejected, take_in
from pulse_framework.search import stream

__all__ = ["Degraded", "degrade", "degrade_files"]


@dataclass(frozen=True)
class Degraded:
    """Pictures written, and inputs that could not be processed."""

    written: list[Path]
    rejected: list[Rejected]


def degrade(
    arguments: Annotated[list[str], typer.Argument(metavar="INPUT... [KEY=VALUE...]", help="Images, folders, overrides.")],
    output: Out,
    degradation: Degradation = None,
    factor: Factor = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Make degraded images from good ones, by the true process: noisy and rounded to 8 bits where the operator says so."""
    inputs, extra = split_overrides(arguments)
    overrides = [f"degradation={degradation}"] if degradation else []
    overrides += [f"degradation.factor='{factor}'"] if factor else []
    with planning():
        config = load([*overrides, *extra], config_dir)
        done = degrade_files(inputs, output, config=config, seed=seed, overwrite=overwrite, allow=allow or [])
    for path in done.written:
        sys.stdout.write(f"{path}\n")
    for item in done.rejected:
        say(f"pulse: {' '.join(item.error.split())}")
    if not quiet:
        say(f"pulse: {len(done.written)} written, {len(done.rejected)} in error; in {output}")
    if done.rejected:
        raise typer.Exit(1 if done.written else 2)


def degrade_files(
    inputs: Sequence[str | Path],
    output: Path,
    *,
    config: DictConfig,
    seed: int = 0,
    side: int | None = None,
    overwrite: bool = False,
    allow: Sequence[str] = (),
) -> Degraded:
    """Measure every input with the configured degradation and write PNG files of the same names.

    Args:
        inputs: Files and folders.
        output: Folder to write to.
        config: A composed configuration; its degradation is used.
        seed: Seed of the noise, which is a stream of (seed, file name).
        side: Choose the factor of every image so that its height becomes this many pixels.
        overwrite: Whether files may be replaced.
        allow: Packages, beyond this project's own, whose targets may be called.

    Raises:
        ConfigError: The configuration cannot be built, or a file is in the way.
    """
    sources, rejected = take_in(inputs)
    written: list[Path] = []
    same = [source.path for source in sources if (output / f"{source.name}.png").resolve() == source.path.resolve()]
    if same:
        raise ConfigError(f"output {output}: expected a folder that is not the input's, got {same[0]}; choose another folder")
    taken = [source.name for source in sources if (output / f"{source.name}.png").exists()]
    if taken and not overwrite:
        raise ConfigError(f"output {output}: expected no {taken[0]}.png, got one; choose another folder or add --overwrite")
    node = config.degradation.copy()
    if side is None and OmegaConf.is_missing(node, "factor"):
        raise ConfigError("degradation.factor: expected a value, got none; give --factor N")
    for source in sources:
        if side is not None:
            node.factor = str(Fraction(source.shape[0], side))
        operator = build_as(DegradationInterface, node, allow)
        try:
            image = read_image(source.path)[None]
            operator.measurement_shape(tuple(image.shape[1:]))
            output.mkdir(parents=True, exist_ok=True)
            path = output / f"{source.name}.png"
            write_png(operator.measure(image, stream(seed, source.key))[0], path)
            written.append(path)
        except ValueError as error:
            text = str(error)
            rejected.append(Rejected(source.path, text if str(source.path) in text else f"{source.path}: {text}"))
    return Degraded(written, rejected)
