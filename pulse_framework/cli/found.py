"""Faces found in photos, and written as measurements with their operators, so that they are inputs like any other.

They go to ``.faces/NAME`` in the output folder: for each face a tensor, the photo's own pixels, and a sidecar with the ``warp``
that makes them of an aligned image; and last ``faces.json``, by which a later run knows what was found. What is written of a
photo depends on it and on the settings alone, not on the photos beside it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from pulse_framework.cli.compose import build_as
from pulse_framework.cli.sidecar import Recorded, sidecar_path, write_sidecar
from pulse_framework.faces import Face, FaceDetector, Framing, Square
from pulse_framework.faces.photo import Photo, read_photo
from pulse_framework.files import remove_parts, write_atomic
from pulse_framework.images import MAX_PIXELS
from pulse_framework.interfaces import Degradation
from pulse_framework.runtime import Source, write_latents

__all__ = ["WORKING", "Asked", "Faces", "Found", "Photos"]

WORKING = ".faces"
"""Folder, in the output folder, of what is searched for."""


class Photos:
    """Photos by path. The last ones stay decoded, as many as have the pixels of the largest that is read.

    Args:
        max_pixels: Of the largest that is read.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self.max_pixels = max_pixels
        self._kept: dict[Path, Photo] = {}

    def __call__(self, path: Path) -> Photo:
        """The photo, decoded only if it is not at hand.

        Raises:
            ReadError: It cannot be read.
        """
        if path not in self._kept:
            photo = read_photo(path, self.max_pixels)
            self._kept[path] = photo.light()
            while sum(kept.image.width * kept.image.height for kept in self._kept.values()) > self.max_pixels:
                del self._kept[next(iter(self._kept))]
            return photo
        return self._kept[path].light()


@dataclass(frozen=True)
class Found:
    """One face as an input of the search.

    Attributes:
        number: Its place among the faces of its photo, from 0, the largest.
        box: Left, top, right, bottom, in pixels of the photo.
        found_by: Name of the detector.
        square: What is searched for, in the photo.
        share: Of the measurement's pixels, how many the square covers.
        measurement: SHA-256 of the file.
    """

    number: int
    box: tuple[float, ...]
    found_by: str
    square: Square
    share: float
    measurement: str


@dataclass(frozen=True)
class Faces:
    """A photo and its faces.

    Attributes:
        source: The photo.
        name: What its results are called, below the output folder.
        folder: Where its measurements are.
        print: Identifies the photo's bytes and how its faces were found.
        note: What of the photo is not kept.
        found: The faces that were asked for.
    """

    source: Source
    name: str
    folder: Path
    print: str
    note: str
    found: tuple[Found, ...]

    def path(self, face: Found) -> Path:
        """Of a face's measurement. Its name, the key of the random streams, is that of the photo and the face's number."""
        return self.folder / f"{self.source.path.name}_face{face.number}.safetensors"

    def stem(self, face: Found) -> str:
        """What a face's own results are called."""
        return f"{self.name}_face{face.number}"


@dataclass(frozen=True)
class Asked:
    """How faces are found.

    Attributes:
        config: The composed configuration; its degradation gets the corners of each face.
        image_shape: (C, H, W) of the generator's images.
        find: What finds them.
        backend: Its name, or the path of a file.
        framing: How the generator's images lie about a face.
        which: ``all``, ``largest`` or a number.
        smallest: Side of the smallest face, in pixels.
        allow: Packages, beyond this project's own, whose targets may be called.
    """

    config: DictConfig
    image_shape: tuple[int, int, int]
    find: FaceDetector
    backend: str
    framing: Framing
    which: str
    smallest: int
    allow: Sequence[str]

    def faces(self, source: Source, name: str, output: Path, photos: Photos) -> Faces:
        """Those of a photo, with their measurements written; as an earlier run found them, if it did.

        Raises:
            ValueError: The photo cannot be read, or a face lies outside of it.
        """
        folder = output / WORKING / name
        identity = self._print(source)
        known = self._known(source, name, folder, identity)
        if known is not None:
            return known
        photo = photos(source.path)
        found = [self._measured(photo, source, folder, k, face) for k, face in self._chosen(photo, str(source.path))]
        folder.mkdir(parents=True, exist_ok=True)
        content = {"print": identity, "note": photo.note, "found": [asdict(face) for face in found]}
        write_atomic(folder / "faces.json", json.dumps(content).encode())
        return Faces(source, name, folder, identity, photo.note, tuple(found))

    def _chosen(self, photo: Photo, where: str) -> list[tuple[int, Face]]:
        """The faces that are asked for, with their numbers."""
        faces = sorted(self.find(photo.picture, where), key=lambda face: -face.size)
        numbered = list(enumerate(face for face in faces if face.size >= self.smallest))
        if self.which == "all":
            return numbered
        number = 0 if self.which == "largest" else int(self.which)
        return numbered[number : number + 1]

    def _measured(self, photo: Photo, source: Source, folder: Path, number: int, face: Face) -> Found:
        """Write the pixels that a face covers, black where it does not, and how they come from an aligned image."""
        square = self.framing.square(face)
        top, left, bottom, right = square.window(*photo.picture.shape[1:])
        node = self.config.degradation.copy()
        node.corners = square.moved(-left, -top).corners.tolist()
        node.height, node.width = bottom - top, right - left
        mask = build_as(Degradation, node, self.allow).mask(self.image_shape)
        if mask is None or not bool(mask.any()):
            raise ValueError("a face is smaller than a pixel or outside of the photo; check its box")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{source.path.name}_face{number}.safetensors"
        seen = (photo.picture[:, top:bottom, left:right] * mask[0]).to(torch.float32)
        write_latents(path, {"measurement": seen}, {"format": "pulse-latent measurement"})
        write_sidecar(path, Recorded(self.config.choices.degradation, node), seed=0, key=source.key)
        box = tuple(float(value) for value in face.box)
        return Found(number, box, face.found_by, square, float(mask.mean()), _sha256(path))

    def _print(self, source: Source) -> str:
        """Identifies the photo's bytes and everything that the measurements depend on besides."""
        given = Path(self.backend)
        settings = {
            "find": hashlib.sha256(given.read_bytes()).hexdigest() if given.is_file() else self.find.name,
            "framing": asdict(self.framing),
            "which": self.which,
            "smallest": self.smallest,
            "degradation": OmegaConf.to_container(self.config.degradation),
            "version": version("pulse-latent"),
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        with source.path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @staticmethod
    def _known(source: Source, name: str, folder: Path, identity: str) -> Faces | None:
        """What an earlier run found, if that was the same photo and nothing of it is damaged."""
        if not folder.is_dir():
            return None
        remove_parts(folder)
        content = read_json(folder / "faces.json")
        if content.get("print") != identity:
            return None
        found = tuple(_found(**face) for face in content["found"])
        faces = Faces(source, name, folder, identity, content["note"], found)
        whole = all(
            faces.path(face).exists()
            and sidecar_path(faces.path(face)).exists()
            and _sha256(faces.path(face)) == face.measurement
            for face in found
        )
        return faces if whole else None


def read_json(path: Path) -> dict[str, Any]:
    """A file that a run wrote for itself; empty if there is none or it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _found(*, square: dict[str, list[float]], box: list[float], **others: Any) -> Found:  # noqa: ANN401
    (cx, cy), (ax, ay) = square["centre"], square["axis"]
    return Found(square=Square((cx, cy), (ax, ay)), box=tuple(box), **others)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
