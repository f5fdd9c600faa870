"""What is to be searched for: image files found, looked at and named before any expensive work."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_framework.formats import SUFFIXES
from pulse_framework.images import MAX_PIXELS, ReadError, peek
from pulse_framework.runtime.measurements import SUFFIX, has_measurement, peek_measurement

__all__ = ["SUFFIXES", "Rejected", "Source", "find_images", "take_in"]

RECORDS = "results.jsonl"
"""What a run records its results in: a folder below an input folder that has one is the output of a run."""

RESERVED = ("grid",)
"""Names of pictures that a run writes of its own."""


@dataclass(frozen=True)
class Source:
    """An input: a picture, or a measurement that is none.

    Attributes:
        index: Its place among the inputs.
        path: The file, as it was given or found.
        name: What its results are called: the stem of the file, with a short hash of the path where stems clash.
        shape: (height, width) of the upright picture; of a measurement, all of its shape.
        picture: Whether it is a picture.
    """

    index: int
    path: Path
    name: str
    shape: tuple[int, ...]
    picture: bool = True

    @property
    def key(self) -> str:
        """Key of its random streams: the file name."""
        return self.path.name


@dataclass(frozen=True)
class Rejected:
    """An input that cannot be processed, and why."""

    path: Path
    error: str


def take_in(inputs: Iterable[str | Path], max_pixels: int = MAX_PIXELS) -> tuple[list[Source], list[Rejected]]:
    """Find and look at every input, reading headers only.

    Args:
        inputs: Files and folders; a file found twice is taken once.
        max_pixels: Of the largest picture that is taken.

    Returns:
        The pictures and measurements, and the inputs that are neither, each with a one-line reason.
    """
    found: dict[Path, Path] = {}
    rejected: list[Rejected] = []
    for given in map(Path, inputs):
        try:
            for path in find_images([given]):
                found.setdefault(path.resolve(), path)
        except ReadError as error:
            rejected.append(Rejected(given, str(error)))
    shapes: dict[Path, tuple[int, ...]] = {}
    for path in found.values():
        try:
            shapes[path] = _shape(path, max_pixels)
        except ReadError as error:
            rejected.append(Rejected(path, str(error)))
    paths = list(shapes)
    named = enumerate(zip(paths, _names(paths), strict=True))
    return [Source(i, path, name, shapes[path], picture=not _stored(path)) for i, (path, name) in named], rejected


def find_images(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The pictures and measurements among files and folders.

    Args:
        paths: Whatever is not a folder is kept as it is, in its place. A folder stands for the files below it that have one of
            ``SUFFIXES`` or are measurements, sorted; hidden files and folders and the output folders of runs in it are skipped,
            links to folders not followed.

    Raises:
        ReadError: A folder has no pictures, or cannot be listed.
    """
    found: list[Path] = []
    for path in [Path(paths)] if isinstance(paths, str | Path) else map(Path, paths):
        found += _inside(path) if path.is_dir() else [path]
    return found


def _stored(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX


def _shape(path: Path, max_pixels: int) -> tuple[int, ...]:
    """(height, width) of a picture that has a shape to restore; shape of a measurement."""
    if _stored(path):
        return peek_measurement(path)
    height, width = peek(path, max_pixels)
    if min(height, width) < 2:
        raise ReadError(
            f"{path}: expected a picture of at least 2 x 2 pixels, got {height} x {width} (height x width), which says too little"
            " of what it shows; give a larger one"
        )
    return height, width


def _inside(folder: Path) -> list[Path]:
    """Pictures below a folder, sorted."""

    def refuse(error: OSError) -> None:
        raise ReadError(f"{folder}: expected a folder that can be listed, got {error}; check its permissions") from error

    found: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and not Path(root, name, RECORDS).exists()]
        shown = [Path(root, name) for name in files if not name.startswith(".")]
        found += [path for path in shown if path.name.lower().endswith(SUFFIXES) or (_stored(path) and has_measurement(path))]
    if not found:
        raise ReadError(f"{folder}: expected pictures ({', '.join(SUFFIXES)}) in the folder, got none; check the path")
    return sorted(found)


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each file that no other file, and no picture of the run itself, has."""
    stems = [path.stem for path in paths]
    count = Counter(stem.casefold() for stem in (*stems, *RESERVED))
    return [
        stem if count[stem.casefold()] == 1 else f"{stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:6]}"
        for stem, path in zip(stems, paths, strict=True)
    ]
