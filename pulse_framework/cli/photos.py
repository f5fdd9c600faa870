"""``pulse restore``: the faces of photos found, searched for on the photo's own pixels, and put back."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from omegaconf import DictConfig

from pulse_framework.cli.compose import ConfigError, build, build_as, load
from pulse_framework.cli.framing import framing_of
from pulse_framework.cli.options import (
    Allow,
    ConfigDir,
    Device,
    Generator,
    Out,
    Overwrite,
    Quiet,
    Seed,
    planning,
    say,
    split_overrides,
)
from pulse_framework.faces import BACKENDS, Face, FaceDetector, Framing, Square, detector
from pulse_framework.faces.photo import Photo, read_photo
from pulse_framework.grid import grid
from pulse_framework.images import write_png
from pulse_framework.interfaces import Degradation
from pulse_framework.interfaces import Generator as GeneratorInterface
from pulse_framework.runtime import Source, take_in, write_latents
from pulse_framework.search import Plan, SearchResult, Status, psnr_db

__all__ = ["restore"]

WARNING = "the faces are invented: people who do not exist, who agree with the photo's pixels; they identify nobody"


@dataclass(frozen=True)
class _Restorer:
    """What is the same for every photo."""

    config: DictConfig
    generator: GeneratorInterface
    plan: Plan
    framing: Framing
    find: FaceDetector
    where: torch.device
    which: str
    smallest: int
    allow: list[str]

    def faces(self, photo: Photo, where: str) -> list[Face]:
        """The faces that are asked for, largest first."""
        found = sorted(self.find(photo.picture, where), key=lambda face: -face.size)
        found = [face for face in found if face.size >= self.smallest]
        if self.which == "all":
            return found
        number = 0 if self.which == "largest" else int(self.which)
        return found[number : number + 1]

    def answer(self, photo: Photo, square: Square, key: str) -> tuple[SearchResult, float]:
        """The search's answer for one face, and its consistency with the pixels that it covers, in dB."""
        height, width = photo.picture.shape[1:]
        top, left, bottom, right = square.window(height, width)
        node = self.config.degradation.copy()
        node.corners = square.moved(-left, -top).corners.tolist()
        node.height, node.width = bottom - top, right - left
        operator = build_as(Degradation, node, self.allow)
        mask = operator.mask(self.generator.image_shape)
        if mask is None or not bool(mask.any()):
            raise ValueError("a face is smaller than a pixel or outside of the photo; check its box")
        seen = photo.picture[:, top:bottom, left:right] * mask[0]
        queue = [(key, seen.to(self.where))]
        (answer,) = self.plan.run(self.plan.engine(self.generator, operator.to(self.where)), queue)
        best = answer.samples[0]
        share = float(mask.mean())  # what hides the photo's other pixels makes them agree
        return best, psnr_db(best.mse / share)


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
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Budget of each search.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    config_dir: ConfigDir = None,
    allow: Allow = None,
) -> None:
    """Find the faces of photos, search for each on the photo's own pixels, and put the answers back: DIR/NAME.png.

    DIR/NAME_face0.png and .safetensors are the answers themselves, largest face first; DIR/results.jsonl has a line for each.
    """
    photos, overrides = split_overrides(arguments)
    with planning():
        chosen = {"generator": generator, "search.steps": steps, "search.seed": seed, "trainer.device": device}
        asked = [f"{key}={value}" for key, value in chosen.items() if value is not None]
        config = load(["degradation=warp", *asked, *overrides], config_dir)
        work = _restorer(config, str(boxes) if boxes else backend, faces, min_size, allow or [])
        sources, rejected = take_in(photos)
        names = _names(sources, photos)
        _check_free(output, names, overwrite=overwrite)
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.jsonl").unlink(missing_ok=True)
    if not quiet:
        say(f"pulse: faces are found by {work.find.name}")
        say(f"pulse: {WARNING}")
    errors = [item.error for item in rejected]
    done = 0
    for source in sources:
        try:
            photo = read_photo(source.path)
            (output / names[source]).parent.mkdir(parents=True, exist_ok=True)
            count = _one(work, source, photo, output, names[source], scale, only_crops=only_crops, before_after=before_after)
        except (ValueError, TypeError) as error:
            errors.append(str(error) if str(source.path) in str(error) else f"{source.path}: {error}")
            continue
        done += count > 0
        if photo.note and not quiet:
            say(f"pulse: {source.path}: {photo.note}")
        if not count:
            kept = copy_without_faces and not only_crops
            if kept:
                photo.enlarged(scale).write(output / f"{names[source]}{photo.suffix}", {})
                sys.stdout.write(f"{output / names[source]}{photo.suffix}\n")
            errors.append(f"{source.path}: no face was found{', it is copied' if kept else ''}; give boxes in a file by --boxes")
    for text in errors:
        say(f"pulse: {' '.join(text.split())}")
    if not quiet:
        say(f"pulse: {done} photos restored, {len(errors)} not; in {output}")
    if errors:
        raise typer.Exit(1 if done else 2)


def _restorer(config: DictConfig, backend: str, which: str, smallest: int, allow: list[str]) -> _Restorer:
    if which not in ("all", "largest") and not which.isdecimal():
        raise ConfigError(f"--faces: expected all, largest or a number from 0, got {which!r}")
    framing = framing_of(config)
    if framing is None or framing.by != "ffhq":
        raise ConfigError(
            f"generator: expected one of faces whose card names its framing, got {config.choices.generator}; choose another"
        )
    where = build(config.trainer, allow)().strategy.root_device
    made = build_as(GeneratorInterface, config.generator, allow).to(where)
    plan = build_as(Plan, config.search, allow)
    return _Restorer(config, made, plan, framing, detector(backend), where, which, smallest, allow)


def _one(
    work: _Restorer, source: Source, photo: Photo, output: Path, name: str, scale: int, *, only_crops: bool, before_after: bool
) -> int:
    """Restore one photo; how many of its faces were."""
    canvas, written = photo.enlarged(scale), []
    text: dict[str, str] = {}
    made = f"{name}{photo.suffix}"
    for k, face in enumerate(work.faces(photo, str(source.path))):
        square = work.framing.square(face)
        result, db = work.answer(photo, square, f"{source.key}#{k}")
        stem = f"{name}_face{k}"
        record = _record(work, source, result, face, k, db)
        if result.status is not Status.FAILED:
            text = {"Generator": work.config.choices.generator, "Seed": str(result.seed), "Description": f"pulse: {WARNING}"}
            picture = result.image.detach().cpu().float()
            write_latents(output / f"{stem}.safetensors", result.latents, {"generator": text["Generator"], "seed": text["Seed"]})
            write_png(picture, output / f"{stem}.png", text)
            canvas = canvas.with_face(picture, square.scaled(scale))
            written.append(f"{stem}.png")
            record |= {"crop": f"{stem}.png", "latent": f"{stem}.safetensors"}
            record |= {"output": None if only_crops else made}
        with (output / "results.jsonl").open("ab") as lines:
            lines.write(json.dumps(record).encode() + b"\n")
    if written and not only_crops:
        canvas.write(output / made, text)
        written.append(made)
    if written and before_after:
        pair = [photo.enlarged(scale).picture, canvas.picture]
        write_png(grid([pair], cell=max(canvas.image.size)), output / f"{name}_before_after.png")
    for file in written:
        sys.stdout.write(f"{output / file}\n")
    return len(written) - (made in written)


def _record(work: _Restorer, source: Source, result: SearchResult, face: Face, number: int, db: float) -> dict[str, Any]:
    failed = result.status is Status.FAILED
    return {
        "input": str(source.path),
        "output": None,
        "face": number,
        "box": [round(value, 2) for value in face.box],
        "found_by": face.found_by,
        "seed": result.seed,
        "status": result.status.value,
        "psnr_db": None if failed else db,
        "steps": result.steps,
        "seconds": round(result.seconds, 4),
        "generator": work.config.choices.generator,
        "degradation": work.config.choices.degradation,
        "crop": None,
        "latent": None,
    }


def _names(sources: list[Source], given: list[str]) -> dict[Source, str]:
    """What the results of each photo are called, below the output: folders keep their tree."""
    folders = [Path(text) for text in given if Path(text).is_dir()]
    made: dict[Source, str] = {}
    for source in sources:
        inside = [source.path.relative_to(folder).parent for folder in folders if source.path.is_relative_to(folder)]
        here = inside[0] if inside else Path()
        name = (here / source.path.stem).as_posix()
        made[source] = (here / source.name).as_posix() if name in made.values() else name
    return made


def _check_free(output: Path, names: dict[Source, str], *, overwrite: bool) -> None:
    """Refuse to write over a photo, or over anything else unless told to."""
    photos = {source.path.resolve() for source in names}
    for name in names.values():
        paths = [output / f"{name}{suffix}" for suffix in (".png", ".tif", ".webp", "_face0.png")]
        for path in (path for path in paths if path.exists()):
            if path.resolve() in photos:
                raise ConfigError(f"output {output}: expected a folder that is not the input's, got {path}; choose another")
            if not overwrite:
                raise ConfigError(f"output {output}: expected no {path.name}, got one; choose another folder or add --overwrite")
