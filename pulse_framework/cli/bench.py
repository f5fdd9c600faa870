"""``pulse bench``: searches compared on the same measurements, as a table, lines and a plot."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import Progress

from pulse_framework.cli.comparison import TOGETHER, Comparison, compare
from pulse_framework.cli.compose import ConfigError, build, build_as, load
from pulse_framework.cli.draws import is_random
from pulse_framework.cli.latents import sampling_priors
from pulse_framework.cli.methods import Chosen, Shared, chosen, composed, fitting
from pulse_framework.cli.options import (
    Allow,
    ConfigDir,
    Degradation,
    Device,
    Generator,
    LogJson,
    Out,
    Overwrite,
    Quiet,
    Seed,
    planning,
    say,
    split_overrides,
)
from pulse_framework.cli.tally import SCORES, Tally, machine, plot, table
from pulse_framework.cli.targets import Targets, generated, pictures
from pulse_framework.files import write_atomic
from pulse_framework.interfaces import Degradation as DegradationInterface
from pulse_framework.interfaces import Generator as GeneratorInterface
from pulse_framework.runtime import Rejected

__all__ = ["bench"]

FACTOR = "8"
"""Where a configuration leaves the factor open."""
FILES = ("bench.md", "bench.jsonl", "bench.svg")


def bench(
    output: Out,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Overrides of all methods; a method's own come after.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of high-resolution pictures, or a .npy array (N, h, w) of grey ones.")
    ] = None,
    drawn: Annotated[int, typer.Option("--generated", min=0, help="Images that the generator draws.")] = 0,
    count: Annotated[int, typer.Option("--count", min=1, help="Pictures of the folder, at most.")] = 64,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="A method of your own, 'NAME: KEY=VALUE ...'; may be repeated.")
    ] = None,
    only: Annotated[str | None, typer.Option("--only", help="Pattern of the names of the methods that run.")] = None,
    generator: Generator = None,
    degradation: Degradation = None,
    factor: Annotated[str | None, typer.Option("--factor", help=f"Down-scale, such as 8 or 32/5; {FACTOR} if left out.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    _log_json: LogJson = False,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Compare searches: success, consistency, recovered truth, seconds and memory, on the same noiseless measurements.

    Prints a table and writes bench.md, bench.jsonl (a line for each method and image) and bench.svg. Ends with 1 if a picture
    could not be read.
    """
    with planning():
        _check_arguments(arguments or [], images, drawn, output, overwrite=overwrite)
        entries = chosen(method or [], only)
        given = {"generator": generator, "degradation": degradation, "trainer.device": device, "search.seed": seed}
        shared = _shared(given, factor, arguments or [], config_dir, allow or [])
        plans = composed(entries, shared)
        where = build(shared.config.trainer, shared.allow)().strategy.root_device
        operator = build_as(DegradationInterface, shared.config.degradation, shared.allow).to(where)
        made = build_as(GeneratorInterface, shared.config.generator, shared.allow).to(where)
        operator.measurement_shape(made.image_shape)
        sets, rejected = _targets(images, count, made.image_shape, shared.config.data.max_pixels)
        fit = fitting(entries, plans, shared, made, operator, where)
        if drawn:
            priors = sampling_priors(made, build(shared.config.prior, shared.allow))
            sets["generated"] = generated(made, priors, drawn, seed, torch.zeros(1, device=where))
        sets = {title: Targets(targets.keys, targets.images.to(where)) for title, targets in sets.items()}
    for item in rejected:
        say(f"pulse: {' '.join(item.error.split())}", "error", input=str(item.path))
    if not sets:
        say("pulse: nothing to compare on: not one picture could be read; give others, or --generated N", "error")
        raise typer.Exit(2)
    found = _compared(fit, operator, sets, quiet=quiet)
    for name, why in found.refused.items():
        say(f"pulse: {name} is left out: {why}", "error")
    if not any(found.tallies.values()):
        say("pulse: nothing to compare: every method was refused; give others by --method", "error")
        raise typer.Exit(2)
    clock = "CPU s" if where.type == "cpu" else "s"
    tables = _tables(found, clock)
    sys.stdout.write(tables)
    with planning():
        _write(output, found, _page(shared, seed, fit, tables), f"{clock}econds")
    if not quiet:
        say(f"pulse: {', '.join(FILES)} in {output}")
    if rejected:
        raise typer.Exit(1)


def _check_arguments(arguments: Sequence[str], images: Path | None, drawn: int, output: Path, *, overwrite: bool) -> None:
    """Refuse what cannot be meant, before anything is built."""
    others, _ = split_overrides(list(arguments))
    if others:
        raise ConfigError(f"arguments: expected KEY=VALUE, got {others[0]!r}; name pictures by --images")
    if images is None and not drawn:
        raise ConfigError("images: expected --images DIR or --generated N, got neither; give one of them, or both")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output {output}: expected a folder, got a file; choose another name")
    taken = [name for name in FILES if (output / name).exists()]
    if taken and not overwrite:
        raise ConfigError(f"output {output}: expected no {taken[0]}, got one; choose another folder or add --overwrite")


def _shared(
    given: Mapping[str, object], factor: str | None, arguments: Sequence[str], config_dir: Path | None, allow: Sequence[str]
) -> Shared:
    """What all methods have in common; generator and degradation by name, so that no experiment brings another one."""
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    overrides += [f"degradation.factor='{factor}'"] if factor else []
    overrides += ["search.target_noise=null", *arguments]  # measurements without noise are to be met exactly
    config = load(overrides, config_dir)
    if OmegaConf.is_missing(config.degradation, "factor"):
        overrides.append(f"degradation.factor='{FACTOR}'")
    if is_random(config.degradation):
        raise ConfigError(
            f"degradation: expected one operator for all images, got {config.choices.degradation}, some of whose values are"
            " drawn for each; give it values, or choose another"
        )
    trainer = {"precision": "32-true", "devices": 1, "channels_last": False}
    for key, wanted in trainer.items():
        if config.trainer.get(key, wanted) != wanted:
            raise ConfigError(f"trainer.{key}: expected {wanted} to compare searches, got {config.trainer[key]}; leave it out")
    names = [f"{group}={config.choices[group]}" for group in ("generator", "degradation")]
    overrides = [*names, *overrides]
    return Shared(load(overrides, config_dir), overrides, config_dir, allow)


def _targets(
    images: Path | None, count: int, image_shape: tuple[int, int, int], max_pixels: int
) -> tuple[dict[str, Targets], list[Rejected]]:
    """The pictures, if there are any, and those that cannot be read."""
    if images is None:
        return {}, []
    if not images.exists():
        raise ConfigError(f"--images {images}: expected a folder of pictures, got nothing of that name; check the path")
    targets, rejected = pictures(images, image_shape, count, max_pixels)
    return {"pictures": targets} if targets.keys else {}, rejected


def _compared(fit: Chosen, operator: DegradationInterface, sets: Mapping[str, Targets], *, quiet: bool) -> Comparison:
    """What the methods find, with a bar of what is done."""
    total = len(fit.methods) * sum(len(targets.keys) for targets in sets.values())
    with Progress(console=Console(stderr=True), disable=quiet, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("searches", total=total)

        def tell(title: str, name: str, turn: int, tally: Tally) -> None:
            progress.update(bar, advance=turn, description=f"{title}: {name}: {tally.success:.0%}", refresh=True)

        try:
            found = compare(fit.methods, operator, sets, tell)
        except KeyboardInterrupt as interrupt:
            say("pulse: interrupted; nothing was written", "error")
            raise typer.Exit(130) from interrupt
    found.refused = fit.refused | found.refused
    return found


def _tables(found: Comparison, clock: str) -> str:
    """A table for each set of targets, and below it what came before the first image."""
    parts = []
    for title, tallies in found.tallies.items():
        number = len(next(iter(tallies.values())).lines)
        parts.append(f"### {number} {'image' if number == 1 else 'images'}, {title}\n\n{table(tallies, clock)}\n")
    first = next(iter(found.tallies.values()))
    once = "; ".join(f"{name} {tally.once(clock)}" for name, tally in first.items())
    parts.append(f"Once for all images, each method's start and a first search: {once}.\n")
    parts += [f"{name} is left out: {why}\n" for name, why in found.refused.items()]
    return "\n".join(parts)


def _page(shared: Shared, seed: int, fit: Chosen, tables: str) -> str:
    """All of ``bench.md``."""
    chosen, factor = shared.config.choices, shared.config.degradation.get("factor")
    scaled = "" if factor is None else f" by {factor}"
    settings = "\n".join(f"- {name}: `{' '.join(overrides) or 'nothing'}`" for name, overrides in fit.overrides.items())
    common = " ".join(shared.overrides)
    return f"""# Searches compared

`{chosen.generator}`, `{chosen.degradation}`{scaled}, without noise, seed {seed}; methods in turn, {TOGETHER} images at a time.

{tables}
![Success against seconds](bench.svg)

{SCORES}

Settings of all methods: `{common}`. Their own:

{settings}

{machine()}.
"""


def _write(output: Path, found: Comparison, page: str, clock: str) -> None:
    output.mkdir(parents=True, exist_ok=True)
    lines = [line.json() for tallies in found.tallies.values() for tally in tallies.values() for line in tally.lines]
    contents = (page, "".join(f"{line}\n" for line in lines), plot(found.tallies, clock))
    for name, content in zip(FILES, contents, strict=True):
        write_atomic(output / name, content.encode())
