"""``pulse encoder``: train a network that guesses where a search should begin."""

import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save

from pulse_framework.cli.compose import ConfigError, build, build_as, load
from pulse_framework.cli.options import (
    Allow,
    ConfigDir,
    Degradation,
    Device,
    Factor,
    Generator,
    Overwrite,
    Quiet,
    Seed,
    planning,
    say,
)
from pulse_framework.files import write_atomic
from pulse_framework.interfaces import Degradation as DegradationInterface
from pulse_framework.interfaces import Generator as GeneratorInterface
from pulse_framework.search import Plan
from pulse_framework.search.encoder import Training, encoder_card, encoder_probes, encoder_tensors, train_encoder
from pulse_framework.search.joint import join

__all__ = ["encoder"]

encoder = typer.Typer(help="Encoders: networks that guess where a search should begin.", no_args_is_help=True)


@encoder.callback()
def _group() -> None:
    """Keeps ``train`` a command of its own, though it is the only one."""


@encoder.command()
def train(
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Overrides.")] = None,
    generator: Generator = None,
    degradation: Degradation = None,
    factor: Factor = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Pairs drawn from the generator.")] = Training.samples,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of 256 pairs.")] = Training.steps,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Train an encoder on what the generator draws and the degradation makes of it; prints the file and how well it guesses."""
    with planning():
        if output.suffix != ".safetensors":
            raise ConfigError(f"--output {output}: expected a name that ends in .safetensors, got another; add it")
        if output.is_dir() or (output.exists() and not overwrite):
            raise ConfigError(f"--output {output}: expected a new file, got one that is there; give --overwrite or another name")
        chosen = {"generator": generator, "degradation": degradation, "degradation.factor": factor, "trainer.device": device}
        config = load([*(f"{key}={value}" for key, value in chosen.items() if value is not None), *(arguments or [])], config_dir)
        if OmegaConf.is_missing(config.degradation, "factor"):
            raise ConfigError("degradation: expected a factor, got none; give --factor, such as --factor 8")
        where = build(config.trainer, allow or [])().strategy.root_device
        operator = build_as(DegradationInterface, config.degradation, allow or [])
        made = join(build_as(GeneratorInterface, config.generator, allow or []).to(where), operator)
        operator.measurement_shape(made.image_shape)
        priors = build_as(Plan, config.search, allow or []).phases[0].on(made)[0].priors(made)
        settings = Training(samples=samples, steps=steps, seed=seed)
    like, begun = torch.zeros(1, device=where), time.perf_counter()
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as progress:
        bars = {what: progress.add_task(what, total=None) for what in ("pairs", "steps")}
        fitted, cosines = train_encoder(
            made, operator, priors, like, settings, lambda what, done, of: progress.update(bars[what], completed=done, total=of)
        )
    about = {
        "generator": config.choices.generator,
        "degradation": OmegaConf.to_container(config.degradation),
        "training": {"samples": samples, "steps": steps, "seed": seed, "seconds": round(time.perf_counter() - begun, 1)},
    }
    probes = encoder_probes(made, operator, priors, like)
    tensors = {name: value.cpu() for name, value in encoder_tensors(fitted, probes).items()}
    write_atomic(output, save(tensors, encoder_card(fitted, cosines, about)))
    sys.stdout.write(f"{output}\n")
    if not quiet:
        shown = ", ".join(f"{name} {cosine:.2f}" for name, cosine in cosines.items())
        say(f"pulse: cosine between guess and truth, on {settings.held_out} pairs held out: {shown}")
        say(f"pulse: use it by search/start=encoder search.start.path={output}")
