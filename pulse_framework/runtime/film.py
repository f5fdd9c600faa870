"""The search as a film: the best iterates so far of the first images, side by side, at some of the steps."""

import io
import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy
import torch
from PIL import Image, ImageSequence
from torch import Tensor
from torch.nn import functional

from pulse_framework.grid import grid
from pulse_framework.provenance import INVENTED, SYNTHETIC
from pulse_framework.search import Snapshot

__all__ = ["Film", "read_film", "thumbnail"]

SHOWN = 4
"""Images in the film."""
FRAMES = 32
"""Frames of each image, at most: of twice as many, every other is dropped and from then on left out."""
CELL = 128
"""Side of an image in the film, at most, in pixels."""
MILLISECONDS = 120
"""Of a frame."""


class Film:
    """Collects frames of the first start of each image; several searches need not run at the same time."""

    def __init__(self) -> None:
        self._frames: dict[tuple[str, int], dict[int, Tensor]] = {}
        self._gaps: dict[tuple[str, int], int] = {}

    def add(self, snapshots: Iterable[Snapshot]) -> None:
        """Take what is needed of the searches under way; only that is copied from the device."""
        for shot in snapshots:
            name = (shot.key, shot.index)
            if shot.restart or (name not in self._frames and len(self._frames) == SHOWN):
                continue
            frames = self._frames.setdefault(name, {})
            gap = self._gaps.setdefault(name, 1)
            if frames and shot.step < next(reversed(frames)) + gap:  # steps only grow
                continue
            if shot.image.shape[0] in (1, 3):
                frames[shot.step] = thumbnail(shot.image)
            if len(frames) == 2 * FRAMES:
                self._frames[name] = dict(list(frames.items())[1::2])
                self._gaps[name] = min(later - earlier for earlier, later in pairwise(self._frames[name]))

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Step and picture, shape (3, height, width) in [0, 1]; a search that is over, or has no frame there, keeps its last."""
        films = [frames for frames in self._frames.values() if frames]
        steps = sorted({step for frames in films for step in frames})
        for step in steps[:: max(1, -(-len(steps) // FRAMES))][:-1] + steps[-1:]:
            shown = [frames[max((at for at in frames if at <= step), default=min(frames))] for frames in films]
            yield step, grid([shown], cell=CELL)

    def gif(self) -> bytes:
        """The film as an animated GIF that repeats, with its steps in the comment; empty if there are no frames."""
        steps, frames = zip(*self, strict=True) if any(self._frames.values()) else ((), ())
        if not frames:
            return b""
        first, *others = (Image.fromarray((frame * 255).round().to(torch.uint8).movedim(0, -1).numpy()) for frame in frames)
        told = json.dumps({"steps": steps, "DigitalSourceType": SYNTHETIC, "Description": INVENTED}).encode()
        file = io.BytesIO()
        first.save(file, "GIF", save_all=True, append_images=others, duration=MILLISECONDS, loop=0, comment=told)
        return file.getvalue()


def read_film(content: bytes) -> list[tuple[int, Tensor]]:
    """Steps and pictures of a GIF that ``Film.gif`` made; its colours are at most 256."""
    with Image.open(io.BytesIO(content)) as film:
        steps = json.loads(film.info["comment"])["steps"]
        frames: list[Any] = []
        for frame in ImageSequence.Iterator(film):  # equal frames are stored as one that lasts longer
            frames += [numpy.asarray(frame.convert("RGB"))] * (int(frame.info["duration"]) // MILLISECONDS)
    return [(step, torch.tensor(frame).movedim(-1, 0) / 255) for step, frame in zip(steps, frames, strict=True)]


def thumbnail(image: Tensor) -> Tensor:
    """A picture, reduced to ``CELL`` pixels where it is larger, on the CPU; shape (C, height, width) in [0, 1]."""
    image = image.detach().to(torch.float32).clamp(0, 1)
    scale = CELL / max(image.shape[1:])
    size = [max(1, round(scale * side)) for side in image.shape[1:]]
    return (functional.interpolate(image[None], size, mode="area")[0] if scale < 1 else image).cpu()
