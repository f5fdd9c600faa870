"""Commands that search: upsample and run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from omegaconf import DictConfig

from pulse_framework.cli.compose import ConfigError, load, named, sweep
from pulse_framework.cli.ending import ENDS, end, sweep_told_to_end, told_to_end
from pulse_framework.cli.framing import unaligned, warn_once
from pulse_framework.cli.options import (
    Allow,
    ConfigDir,
    Degradation,
    Factor,
    Generator,
    LogJson,
    Overwrite,
    Profiled,
    Quiet,
    planning,
    say,
    split_overrides,
)
from pulse_framework.cli.places import with_urls_nearby
from pulse_framework.cli.restore import prepare
from pulse_framework.cli.sidecar import Sidecars, asked_for
from pulse_framework.runtime import RayEngine, is_started_from_outside, is_url

__all__ = ["run", "upsample"]


def upsample(
    arguments: Annotated[list[str], typer.Argument(metavar="INPUT... [KEY=VALUE...]", help="Images, folders, URLs, overrides.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder to write to, or its URL.")],
    generator: Generator = None,
    degradation: Degradation = None,
    factor: Factor = None,
    search: Annotated[str | None, typer.Option("--search", help="Name of a search; see `pulse list searches`.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="Different answers for each image.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Budget of steps of each search.")] = None,
    target_db: Annotated[float | None, typer.Option("--target-db", help="Consistency that counts as converged.")] = None,
    keep_known: Annotated[
        bool | None,
        typer.Option("--keep-known/--invent-all", help="Whether pictures keep the observed pixels of a masked input."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the run; 0 is a seed.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="32-true, 64-true, bf16-mixed or 16-mixed.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Searches that run at once.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="local, or ray: a cluster shares the images.")] = None,
    logger: Annotated[str | None, typer.Option("--logger", help="none, csv, wandb or tensorboard.")] = None,
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if an image did not converge.")] = False,
    quiet: Quiet = False,
    profile: Profiled = False,
    _log_json: LogJson = False,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Search for high-resolution images that degrade to the low-resolution inputs.

    An input that has a sidecar, as `pulse degrade` writes, is searched for with that degradation unless another is named;
    --degradation sidecar demands one.
    """
    inputs, extra = split_overrides(arguments)
    asked = asked_for(degradation, [*extra, *(["degradation.factor="] if factor else [])])
    given = {
        "generator": generator,
        "degradation": None if asked is Sidecars.REQUIRE else degradation,
        "sidecars": None if asked is None else asked.value,
        "degradation.factor": None if factor is None else f"'{factor}'",
        "keep_known": keep_known,
        "search": search,
        "search.samples": samples,
        "search.steps": steps,
        "search.target_db": target_db,
        "search.seed": seed,
        "trainer.device": device,
        "trainer.precision": precision,
        "search.slots": batch_size,
        "engine": engine,
        "logger": logger,
    }
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    if target_db is not None:
        overrides.append("search.target_mse=null")
    with planning():
        config = load([*overrides, *extra], config_dir)
        config.output, config.data.inputs = output, inputs
    _finish(config, allow or [], overwrite=overwrite, strict=strict, quiet=quiet, profile=profile)


def run(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Overrides and choices.")] = None,
    multirun: Annotated[bool, typer.Option("-m", "--multirun", help="Sweep over comma-separated values.")] = False,
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if an image did not converge.")] = False,
    quiet: Quiet = False,
    profile: Profiled = False,
    _log_json: LogJson = False,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Run the whole configuration: `pulse run data.inputs=[FILES] output=DIR`, with -m as a Hydra multirun."""
    if not multirun:
        with planning():
            config = load(_told(overrides or []), config_dir)
        _finish(config, allow or [], overwrite=overwrite, strict=strict, quiet=quiet, profile=profile)
        return
    statuses: list[int] = []
    here = os.getpid()

    def job(config: DictConfig, chosen: Mapping[str, str], folder: str) -> None:
        config = named(config, chosen)
        config.output = folder
        if config.logger and "group" in config.logger and config.logger.group is None:
            config.logger.group = Path(folder).resolve().parent.name
        several = is_started_from_outside() or config.trainer.get("devices", 1) != 1
        try:
            with planning():
                _check_start(config)
            _finish(config, allow or [], overwrite=overwrite, strict=strict, quiet=quiet, profile=profile)
            statuses.append(0)
        except typer.Exit as over:
            statuses.append(over.exit_code)
            if os.getpid() != here:  # where a launcher runs it: the list is that process's own
                raise SweptJobError(over.exit_code) from over
            if over.exit_code in ENDS or (over.exit_code == 2 and several):  # other processes wait for this run
                raise KeyboardInterrupt from over

    with planning(), sweep_told_to_end(statuses):
        _refuse_stores(overrides or [])
        try:
            sweep(job, _told(overrides or []), config_dir)
        except SweptJobError as failed:
            statuses.append(failed.status)
    if any(statuses):
        raise typer.Exit(max(statuses))


class SweptJobError(Exception):
    """A job of a sweep has ended with a status other than 0, in a process of its own."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _refuse_stores(overrides: Sequence[str]) -> None:
    """A sweep writes to a folder that Hydra makes.

    Raises:
        ValueError: ``output`` is a URL.
    """
    for text in overrides:
        key, _, place = text.partition("=")
        if key.lstrip("+") == "output" and is_url(place.strip("'\"")):
            raise ValueError(
                f"output: expected a folder of this machine for a sweep, got {place}; send it to the store afterwards"
            )


def _check_start(config: DictConfig) -> None:
    """Refuse a sweep whose other processes Lightning would have to start: it would begin the whole sweep again in each."""
    count = config.trainer.get("devices", 1)
    if count != 1 and not is_started_from_outside():
        raise ConfigError(
            f"trainer.devices: expected 1 in a sweep, or a start by torchrun, got {count}; say "
            f"torchrun --nproc-per-node {count} -m pulse_framework run -m ..."
        )


def _told(overrides: list[str]) -> list[str]:
    """Overrides that say what becomes of sidecars: one that names a degradation wins over them."""
    asked = None if any(text.startswith("sidecars=") for text in overrides) else asked_for(None, overrides)
    return overrides if asked is None else [f"sidecars={asked.value}", *overrides]


def _finish(
    config: DictConfig, allow: Sequence[str], *, overwrite: bool, strict: bool, quiet: bool, profile: bool = False
) -> None:
    """Run the job, print what was written, and end with the right status."""
    with told_to_end():
        with planning():
            config, store, describe = with_urls_nearby(config)
            job = prepare(config, allow=allow, overwrite=overwrite, describe=describe)
            if profile and isinstance(job.engine, RayEngine):
                job.writer.folder.release()
                raise ConfigError("--profile: expected engine=local, got ray, whose time goes elsewhere; leave one of them out")
            if store and job.several:
                job.writer.folder.release()
                raise ConfigError(
                    f"output: expected a folder that all processes see, got {store.url}; send it to the store afterwards"
                )
            job = replace(job, observers=(store,)) if store else job
        quiet = quiet or not job.leads
        if not quiet:
            warn_once(config)
            for note in [*job.notes, *unaligned(config, job.left)]:
                say(f"pulse: {note}")
        try:
            report = job(quiet=quiet, profile=profile)
        finally:
            if store:
                store.send()
    where = store.url if store else config.output
    report = replace(report, written=[store.at(path) for path in report.written]) if store else report
    if job.leads:
        end(report, where, strict=strict, quiet=quiet)
