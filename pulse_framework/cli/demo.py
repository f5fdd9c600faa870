"""``pulse demo``: the main job on the bundled portrait, with pictures."""

import json
from pathlib import Path

import torch
from torch import Tensor

from pulse_framework.cli.compose import load
from pulse_framework.cli.degrade import degrade_files
from pulse_framework.cli.options import Device, Out, Quiet, example_photo, planning, say
from pulse_framework.cli.photos import restore
from pulse_framework.faces import Face, FaceDetector, Framing, Square, crop
from pulse_framework.faces.dlib_landmarks import DlibDetector, dlib_missing
from pulse_framework.faces.given import GivenFaces
from pulse_framework.files import write_atomic
from pulse_framework.grid import grid
from pulse_framework.images import read_image, write_png
from pulse_framework.provenance import COMPOSITE, png_text, said

__all__ = ["demo"]

SIDE = 32
"""Side of the demo's photo, in pixels."""
SCALE = 8
"""How many times larger the restored photo is."""
SAMPLES = 3
CLOSE = Framing(scale=1.3)
"""What the demo's picture shows of a photo, below the whole of it."""


def demo(
    output: Out = Path("demo-out"),
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Restore the bundled portrait: find its face, reduce the photo to 32x32, search, put three answers back: demo.png."""
    with planning():
        portrait = example_photo("portrait.jpg")
        find, photo = _finder(), read_image(portrait)
        (face,) = find(photo, str(portrait))
        config = load([f"trainer.device={device}", "degradation=bicubic"])
        (small,) = degrade_files([portrait], output / "input", side=SIDE, config=config, overwrite=True).written
        boxes = output / "input" / "faces.json"
        write_atomic(boxes, json.dumps({small.name: [_reduced(face, SIDE / photo.shape[1])]}).encode())
    if not quiet:
        pixels = face.size * SIDE / photo.shape[1]
        say(f"pulse: the face in the portrait is found by {find.name}; of {small} it has {pixels:.0f} pixels")
    square = CLOSE.square(face).scaled(SCALE * SIDE / photo.shape[1])
    restore(
        [str(small)],
        output,
        boxes=boxes,
        min_size=1,
        scale=SCALE,
        samples=SAMPLES,
        device=device,
        overwrite=True,
        quiet=quiet,
    )
    photos = [read_image(small).repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2)]
    photos += [read_image(output / f"{small.stem}_{k}.png") for k in range(SAMPLES)]
    told = png_text(said(config.choices.generator, config.search.seed), COMPOSITE)
    write_png(_sheet(photos, square), output / "demo.png", told)
    if not quiet:
        what = "the small photo and three restored ones, and their faces"
        say(f"pulse: look at {output / 'demo.png'}: {what}; numbers in results.jsonl")


def _finder() -> FaceDetector:
    """The detector that works offline; where it is not installed, what it found in the portrait."""
    return GivenFaces(example_photo("portrait.faces.json")) if dlib_missing() else DlibDetector()


def _reduced(face: Face, scale: float) -> dict[str, object]:
    """A face of a photo as an entry of a file of faces for the reduced photo."""
    points = None if face.landmarks is None else (face.landmarks * scale).tolist()
    return {"box": [side * scale for side in face.box], "landmarks": points, "score": face.score}


def _sheet(photos: list[Tensor], square: Square) -> Tensor:
    """Photos in a row, and below each what lies in a square of it."""
    side = photos[0].shape[-1]
    return grid([photos, [crop(photo, square, side).clamp(0, 1).to(torch.float32) for photo in photos]])
