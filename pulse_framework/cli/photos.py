"""``pulse restore``: the faces of photos found, searched for on the photo's own pixels, and put back."""

import contextlib
import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from omegaconf import DictConfig

from pulse_framework.cli.compose import ConfigError, build, build_as, load, plain
from pulse_framework.cli.ending import end, told_to_end
from pulse_framework.cli.found import Asked, Faces, Found, Photos
from pulse_framework.cli.framing import card_of, framing_of, warn_once
from pulse_framework.cli.options import (
    Allow,
    ConfigDir,
    Generator,
    MaxPixels,
    Out,
    Overwrite,
    Quiet,
    planning,
    say,
    split_overrides,
)
from pulse_framework.cli.paste import Paste, Pasting
from pulse_framework.cli.restore import Job, prepare, relevant
from pulse_framework.cli.sidecar import Sidecars
from pulse_framework.faces import BACKENDS, detector
from pulse_framework.files import remove_parts
from pulse_framework.runtime import Claim, MeasurementData, Rejected, Source, take_in
from pulse_framework.search import Plan

__all__ = ["restore"]


def restore(
    arguments: Annotated[list[str], typer.Argument(metavar="PHOTO... [KEY=VALUE...]", help="Photos, folders, overrides.")],
    output: Out,
    backend: Annotated[str, typer.Option("--backend", help=f"What finds faces: {', '.join(BACKENDS)}.")] = "auto",
    boxes: Annotated[Path | None, typer.Option("--boxes", help="JSON or CSV file of boxes or landmarks, in place of it.")] = None,
    faces: Annotated[str, typer.Option("--faces", help="all, largest, or a number: 0 is the largest.")] = "all",
    min_size: Annotated[int, typer.Option("--min-size", min=1, help="Smallest face, in pixels.")] = 8,
    scale: Annotated[int, typer.Option("--scale", min=1, help="How many times larger the photo becomes.")] = 1,
    only_crops: Annotated[bool, typer.Option("--only-crops", help="Write the faces alone.")] = False,
    before_after: Annotated[bool, typer.Option("--before-after", help="Also a picture of each photo before and after.")] = False,
    copy_without_faces: Annotated[bool, typer.Option("--copy-without-faces", help="Write photos without faces too.")] = False,
    generator: Generator = None,
    search: Annotated[str | None, typer.Option("--search", help="Name of a search; see `pulse list searches`.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="Different answers for each face, and pictures.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Budget of each search.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the run; 0 is a seed.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps.")] = None,
    logger: Annotated[str | None, typer.Option("--logger", help="none, csv, wandb or tensorboard.")] = None,
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a face did not converge.")] = False,
    quiet: Quiet = False,
    max_pixels: MaxPixels = None,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Find the faces of photos, search for each on the photo's own pixels, and put the answers back: DIR/NAME.png.

    DIR/NAME_face0.png and .safetensors are the answers themselves, largest face first; DIR/results.jsonl has a line for each.
    The same command goes on from where it was stopped.
    """
    photos, overrides = split_overrides(arguments)
    given = {
        "generator": generator,
        "search": search,
        "search.samples": samples,
        "search.steps": steps,
        "search.seed": seed,
        "trainer.device": device,
        "logger": logger,
        "data.max_pixels": max_pixels,
    }
    chosen = [f"{key}={value}" for key, value in given.items() if value is not None]
    with told_to_end():
        with planning():
            config = load(["degradation=warp", f"sidecars={Sidecars.REQUIRE}", *chosen, *overrides], config_dir)
            config.output = str(output)
            asked = _asked(config, str(boxes) if boxes else backend, faces, min_size, allow or [])
            how = Pasting(
                scale,
                before_after,
                only_crops,
                copy_without_faces,
                config.search.samples,
                config.choices.generator,
                config.search.seed,
                {key: value for key, value in relevant(plain(config)).items() if key != "degradation"},
            )
            paste, rejected = _looked_at(asked, photos, output, how)
            paste.check_free(overwrite=overwrite)
            job = _job(config, paste, rejected, allow or [], overwrite=overwrite)
        if not quiet:
            say(f"pulse: faces are found by {asked.find.name}")
            warn_once(config)
            for note in [*job.notes, *(f"{given.source.path}: {given.note}" for given in paste.inputs if given.note)]:
                say(f"pulse: {note}")
        report = replace(job(quiet=quiet), best_db=paste.best_db)
    end(report, output, strict=strict, quiet=quiet, more=paste.written, summary=f"{paste.restored} photos restored; faces: ")


def _asked(config: DictConfig, backend: str, which: str, smallest: int, allow: list[str]) -> Asked:
    """How faces are found, with everything that can be refused refused."""
    if which not in ("all", "largest") and not which.isdecimal():
        raise ConfigError(f"--faces: expected all, largest or a number from 0, got {which!r}")
    card, framing = card_of(config), framing_of(config)
    if card is None or framing is None or framing.by != "ffhq":
        raise ConfigError(
            f"generator: expected one of faces whose card names its framing, got {config.choices.generator}; choose another"
        )
    build_as(Plan, config.search, allow)
    if (count := build(config.trainer, allow)().world_size) > 1:
        raise ConfigError(f"trainer.devices: expected 1, since photos are put together by one process, got {count}; leave it out")
    image_shape = (3, *card.resolution)
    return Asked(config, image_shape, detector(backend), backend, framing, which, smallest, allow)


def _looked_at(asked: Asked, given: list[str], output: Path, how: Pasting) -> tuple[Paste, list[Rejected]]:
    """The photos with their faces, written as measurements, and what has none."""
    limit = asked.config.data.max_pixels
    sources, rejected = take_in(given, limit)
    names = _names(sources, given)
    photos, found = Photos(limit), []
    output.mkdir(parents=True, exist_ok=True)
    with _held(output):
        for source in sources:
            try:
                if not source.picture:
                    raise ValueError("expected a photo, got a measurement; `pulse upsample` takes it")
                if math.prod(source.shape) * how.scale**2 > limit:
                    what = f"expected at most {limit:,} pixels after --scale {how.scale}, got"
                    raise ValueError(f"{what} {math.prod(source.shape) * how.scale**2:,}; lower it, or raise --max-pixels")
                faces = asked.faces(source, names[source], output, photos)
            except ValueError as error:
                text = str(error)
                rejected.append(Rejected(source.path, text if str(source.path) in text else f"{source.path}: {text}"))
                continue
            for folder in {(output / names[source]).parent, output / names[source]}:
                remove_parts(folder)
            found.append(faces)
            if not faces.found:
                kept = ", it is copied" if how.copy and not how.only_crops else ""
                text = (
                    f"{source.path}: no face of {asked.smallest} pixels or more was found{kept}; give boxes in a file by --boxes,"
                )
                text += " or a smaller --min-size"
                rejected.append(Rejected(source.path, text))
    return Paste(photos, output, how, found), rejected


@contextlib.contextmanager
def _held(output: Path) -> Iterator[None]:
    """The folder, for this process alone; of several that share a run the first holds it."""
    claim = Claim(output) if os.environ.get("LOCAL_RANK", "0") == "0" else None
    try:
        yield
    finally:
        if claim:
            claim.release()


def _job(config: DictConfig, paste: Paste, rejected: list[Rejected], allow: list[str], *, overwrite: bool) -> Job:
    """The search for every face of every photo, in the ordinary runtime."""
    faces = {given.path(face): (given, face) for given in paste.inputs for face in given.found}
    config.data.inputs = [str(path) for path in faces]
    data = build_as(MeasurementData, config.data, allow)
    data.sources = [replace(source, name=faces[source.path][0].stem(faces[source.path][1])) for source in data.sources]
    data.rejected = [*rejected, *data.rejected]
    for source in data.sources:
        (paste.output / source.name).parent.mkdir(parents=True, exist_ok=True)

    def describe(source: Source, line: dict[str, Any]) -> dict[str, Any]:
        return _described(line, *faces[source.path])

    job = prepare(config, allow=allow, overwrite=overwrite, data=data, describe=describe)
    paste.expect(job.left)
    return replace(job, observers=(paste,), conclude=paste.conclude)


def _described(line: dict[str, Any], given: Faces, face: Found) -> dict[str, Any]:
    """A line of a face; its error is that of the pixels that the face covers, since what hides the others makes them agree."""
    shift = 10 * math.log10(face.share)
    shifted = {key: line[key] + shift for key in ("psnr_db", "target_db") if line[key] is not None}
    error = {} if line["mse"] is None else {"mse": line["mse"] / face.share}
    box = [round(value, 2) for value in face.box]
    more = {"photo": str(given.source.path), "face": face.number, "box": box, "found_by": face.found_by}
    return {**line, **shifted, **error, **more}


def _names(sources: list[Source], given: list[str]) -> dict[Source, str]:
    """What the results of each photo are called, below the output: folders keep their tree."""
    folders = [Path(text) for text in given if Path(text).is_dir()]
    made: dict[Source, str] = {}
    for source in sources:
        inside = [source.path.relative_to(folder).parent for folder in folders if source.path.is_relative_to(folder)]
        here, stem = inside[0] if inside else Path(), source.path.stem
        name = (here / stem).as_posix()
        own = name in made.values() or name.casefold() == "grid" or re.search(r"_face\d+(_\d+)?$|_before_after$", name)
        made[source] = (here / _distinct(source)).as_posix() if own else name
    return made


def _distinct(source: Source) -> str:
    """The stem of a photo with a hash of its path, for one that is called as another, or as a result of another."""
    return f"{source.path.stem}-{hashlib.sha256(str(source.path.resolve()).encode()).hexdigest()[:6]}"
