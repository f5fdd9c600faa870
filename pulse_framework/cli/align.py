"""``pulse align``: faces of photos cut out as a generator wants them."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pulse_framework.cli.compose import ConfigError, load
from pulse_framework.cli.framing import card_of, framing_of
from pulse_framework.cli.options import ConfigDir, Generator, MaxPixels, Out, Overwrite, Quiet, planning, say, split_overrides
from pulse_framework.faces import BACKENDS, FFHQ, Face, FaceDetector, Framing, Square, crop, detector
from pulse_framework.files import write_atomic
from pulse_framework.images import MAX_PIXELS, read_image, write_png
from pulse_framework.runtime import Source, take_in

__all__ = ["align"]

ALIGNMENTS = ("generator", "ffhq", "none")
FFHQ_SIZE = 1024


@dataclass(frozen=True)
class _Cut:
    """How the crops are made: the framing, None for a face's own box; pixels a side, None for those of the photo."""

    name: str
    framing: Framing | None
    size: int | None

    def squares(self, faces: Sequence[Face]) -> list[Square]:
        if self.framing is None:
            return [_own(face) for face in faces]
        return [self.framing.square(face) for face in faces]


def align(
    arguments: Annotated[list[str], typer.Argument(metavar="PHOTO... [KEY=VALUE...]", help="Photos, folders, overrides.")],
    output: Out,
    backend: Annotated[
        str, typer.Option("--backend", help=f"{', '.join(BACKENDS)}, or a JSON or CSV file of boxes or landmarks.")
    ] = "auto",
    alignment: Annotated[
        str,
        typer.Option("--alignment", help="generator: as its card says; ffhq; none: the face's box, upright."),
    ] = "generator",
    generator: Generator = None,
    size: Annotated[
        int | None, typer.Option("--size", min=1, help="Pixels a side; the generator's, 1024 for ffhq, or the photo's.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    max_pixels: MaxPixels = None,
    config_dir: ConfigDir = None,
) -> None:
    """Find the faces of photos and cut each out as a generator wants it: DIR/NAME_0.png, largest first.

    DIR/NAME.faces.json tells where they lie; `--backend` takes it. Ends with 1 if a photo has no face or cannot be read.
    """
    photos, overrides = split_overrides(arguments)
    with planning():
        cut = _cut(alignment, [*([f"generator={generator}"] if generator else []), *overrides], size, config_dir)
        limit = max_pixels or MAX_PIXELS
        sources, rejected = take_in(photos, limit)
        _check_free(output, sources, overwrite=overwrite)
        find = None if cut.framing is not None and cut.framing.by == "centre" else detector(backend)
    if find is not None and not quiet:
        say(f"pulse: faces are found by {find.name}")
    errors = [item.error for item in rejected]
    written = 0
    for source in sources:
        try:
            paths = _align_one(source, find, cut, output, limit)
        except ValueError as error:
            text = str(error)
            errors.append(text if str(source.path) in text else f"{source.path}: {text}")
            continue
        written += len(paths)
        for path in paths:
            sys.stdout.write(f"{path}\n")
        if not paths:
            errors.append(f"{source.path}: no face was found; try another --backend, or give boxes in a file")
    for text in errors:
        say(f"pulse: {' '.join(text.split())}")
    if not quiet:
        say(f"pulse: {written} written, {len(errors)} photos without; in {output}")
    if errors:
        raise typer.Exit(1 if written else 2)


def _cut(alignment: str, overrides: Sequence[str], size: int | None, config_dir: Path | None) -> _Cut:
    if alignment == "ffhq":
        return _Cut(alignment, FFHQ, size or FFHQ_SIZE)
    if alignment == "none":
        return _Cut(alignment, None, size)
    if alignment != "generator":
        raise ConfigError(f"--alignment: expected one of {', '.join(ALIGNMENTS)}, got {alignment!r}")
    config = load(overrides, config_dir)
    card, framing = card_of(config), framing_of(config)
    if card is None or framing is None:
        raise ConfigError(
            f"--alignment: expected a generator whose card names its framing, got {config.choices.generator}; give --alignment"
            " ffhq or none"
        )
    return _Cut(config.choices.generator, framing, size or max(card.resolution))


def _align_one(source: Source, find: FaceDetector | None, cut: _Cut, output: Path, max_pixels: int) -> list[Path]:
    """Write the crops of one photo and its sidecar; none and none if it has no face."""
    photo = read_image(source.path, max_pixels)
    height, width = photo.shape[1:]
    faces = [] if find is None else sorted(find(photo, str(source.path)), key=lambda face: -face.size)
    squares = [Framing.middle(height, width)] if find is None else cut.squares(faces)
    if not squares:
        return []
    output.mkdir(parents=True, exist_ok=True)
    paths, entries = [], []
    for k, square in enumerate(squares):
        size = cut.size or max(1, round(square.side))
        path = write_png(crop(photo, square, size), output / f"{source.name}_{k}.png")
        entry: dict[str, Any] = {"crop": path.name, **(_described(faces[k]) if faces else {})}
        entry["square"] = {"centre": square.centre, "axis": square.axis}
        entry["matrix"] = square.matrix(size).tolist()
        entries.append(entry)
        paths.append(path)
    record = {"photo": source.path.name, "height": height, "width": width, "alignment": cut.name, "faces": entries}
    write_atomic(_sidecar(output, source), (json.dumps(record) + "\n").encode())
    return paths


def _described(face: Face) -> dict[str, Any]:
    points = None if face.landmarks is None else face.landmarks.round(3).tolist()
    return {"box": face.box, "score": face.score, "found_by": face.found_by, "landmarks": points}


def _own(face: Face) -> Square:
    """The square about a face's own box."""
    left, top, right, bottom = face.box
    return Square(((left + right) / 2, (top + bottom) / 2), (max(right - left, bottom - top) / 2, 0.0))


def _sidecar(output: Path, source: Source) -> Path:
    return output / f"{source.name}.faces.json"


def _check_free(output: Path, sources: Sequence[Source], *, overwrite: bool) -> None:
    """Refuse to write over a photo, or over anything else unless told to."""
    names, photos = {source.name for source in sources}, {source.path.resolve() for source in sources}
    for path in sorted(output.iterdir()) if output.is_dir() else ():
        ours = re.fullmatch(r"(.+)(?:_\d+\.png|\.faces\.json)", path.name)
        if ours is None or ours[1] not in names:
            continue
        if path.resolve() in photos:
            raise ConfigError(f"output {output}: expected a folder that is not the input's, got {path}; choose another")
        if not overwrite:
            raise ConfigError(f"output {output}: expected no {path.name}, got one; choose another folder or add --overwrite")
