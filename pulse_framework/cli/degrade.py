"""The command that makes degraded images from good ones."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import torch
import typer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from pulse_framework.cli.compose import ConfigError, build_as, load
from pulse_framework.cli.draws import resolve
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
from pulse_framework.cli.sidecar import Recorded, sidecar_path, write_sidecar
from pulse_framework.images import read_image, write_png
from pulse_framework.interfaces import Degradation as DegradationInterface
from pulse_framework.runtime import Rejected, Source, fits_a_picture, has_measurement, take_in, write_latents
from pulse_framework.search import stream

__all__ = ["Degraded", "degrade", "degrade_files"]


@dataclass(frozen=True)
class Degraded:
    """Files written, without sidecars, and inputs that could not be processed."""

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
    """Make degraded images from good ones, by the true process: noisy and rounded to 8 bits where the operator says so.

    Beside each goes NAME.degradation.yaml, the degradation as it was applied, which `pulse upsample` uses.
    """
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
    """Measure every input with the configured degradation and write PNG files of the same names, each with its sidecar.

    A measurement that is no picture of 8 bits becomes a safetensors file.

    Args:
        inputs: Files and folders.
        output: Folder to write to.
        config: A composed configuration; its degradation is used.
        seed: Seed of the noise and of what is drawn, which are streams of (seed, file name).
        side: Choose the factor of every image so that its height becomes this many pixels.
        overwrite: Whether files may be replaced.
        allow: Packages, beyond this project's own, whose targets may be called.

    Raises:
        ConfigError: The configuration cannot be built, or a file is in the way.
    """
    sources, rejected = take_in(inputs, config.data.max_pixels)
    stored = [source for source in sources if not source.picture]
    rejected += [
        Rejected(source.path, f"{source.path}: expected a picture, got a measurement; give the original") for source in stored
    ]
    sources = [source for source in sources if source.picture]
    _check_free(output, sources, overwrite=overwrite)
    if side is None and OmegaConf.is_missing(config.degradation, "factor"):
        raise ConfigError("degradation.factor: expected a value, got none; give --factor N")
    name, nodes = config.choices.degradation, [_concrete(config, source, seed, side) for source in sources]
    built: dict[str, DegradationInterface] = {}
    for node in nodes:  # all of them before any work
        built.setdefault(_text(node), build_as(DegradationInterface, node, allow))
    written: list[Path] = []
    for source, node in zip(sources, nodes, strict=True):
        operator = built[_text(node)]
        try:
            image = read_image(source.path, config.data.max_pixels)[None]
            operator.measurement_shape((image.shape[1], image.shape[2], image.shape[3]))
            with torch.no_grad():
                y = operator.measure(image, stream(seed, source.key))[0]
        except ValueError as error:
            text = str(error)
            rejected.append(Rejected(source.path, text if str(source.path) in text else f"{source.path}: {text}"))
            continue
        output.mkdir(parents=True, exist_ok=True)
        path = _write(y, output / source.name)
        write_sidecar(path, Recorded(name, node), seed=seed, key=source.key)
        written.append(path)
    return Degraded(written, rejected)


def _concrete(config: DictConfig, source: Source, seed: int, side: int | None) -> DictConfig:
    """The degradation of one image."""
    node = config.degradation.copy()
    if side is not None:
        node.factor = str(Fraction(source.shape[0], side))
    return resolve(node, seed, source.key)


def _text(node: DictConfig) -> str:
    """What nodes that build the same have in common."""
    return json.dumps(OmegaConf.to_container(node))


def _check_free(output: Path, sources: Sequence[Source], *, overwrite: bool) -> None:
    """Refuse to write over an input, or over anything else unless told to."""
    for source in sources:
        paths = [output / f"{source.name}.png", output / f"{source.name}.safetensors"]
        if any(path.resolve() == source.path.resolve() for path in paths):
            raise ConfigError(
                f"output {output}: expected a folder that is not the input's, got {source.path}; choose another folder"
            )
        taken = [path for path in (*paths, sidecar_path(paths[0])) if path.exists()]
        if taken and not overwrite:
            raise ConfigError(f"output {output}: expected no {taken[0].name}, got one; choose another folder or add --overwrite")


def _write(y: Tensor, stem: Path) -> Path:
    """Write a measurement as a picture if it is one, else as a tensor; what an earlier run wrote of it goes."""
    picture, tensor = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "safetensors"))
    if fits_a_picture(y):
        if has_measurement(tensor):
            tensor.unlink()
        return write_png(y, picture)
    picture.unlink(missing_ok=True)
    write_latents(tensor, {"measurement": y.to(torch.float32)}, {"format": "pulse-latent measurement"})
    return tensor
