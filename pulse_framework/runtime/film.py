"""The search as a film: the best iterates so far of the first images, side by side, at some of the steps."""

import io
import json
from bisect import bisect_right
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


class _Reel:
    """Frames of one search, in memory that is taken once.

    Frames taken one by one lie between what a step needs and gives back, so that the system's allocator asks for the same pages
    anew in every step from then on: for one picture of 64x64, 750 page faults a step instead of 20, which was 8 % of its time.
    """

    def __init__(self, like: Tensor) -> None:
        self.steps: list[int] = []
        self.frames = torch.empty(2 * FRAMES, *like.shape)
        self.gap = 1

    def add(self, step: int, frame: Tensor) -> None:
        self.frames[len(self.steps)] = frame
        self.steps.append(step)
        if len(self.steps) == 2 * FRAMES:
            self.steps, self.frames[:FRAMES] = self.steps[1::2], self.frames[1::2].clone()
            self.gap = min(later - earlier for earlier, later in pairwise(self.steps))

    def at(self, step: int) -> Tensor:
        """The last frame until then, or the first."""
        return self.frames[max(0, bisect_right(self.steps, step) - 1)]


class Film:
    """Collects frames of the first start of each image; several searches need not run at the same time."""

    def __init__(self) -> None:
        self._reels: dict[tuple[str, int], _Reel] = {}

    def add(self, snapshots: Iterable[Snapshot]) -> None:
        """Take what is needed of the searches under way; only that is copied from the device."""
        for shot in snapshots:
            name = (shot.key, shot.index)
            reel = self._reels.get(name)
            if shot.restart or shot.image.shape[0] not in (1, 3) or (reel is None and len(self._reels) == SHOWN):
                continue
            if reel is None or shot.step >= reel.steps[-1] + reel.gap:  # steps only grow
                frame = thumbnail(shot.image)
                if reel is None:
                    reel = self._reels[name] = _Reel(frame)
                reel.add(shot.step, frame)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Step and picture, shape (3, height, width) in [0, 1]; a search that is over, or has no frame there, keeps its last."""
        steps = sorted({step for reel in self._reels.values() for step in reel.steps})
        for step in steps[:: max(1, -(-len(steps) // FRAMES))][:-1] + steps[-1:]:
            yield step, grid([[reel.at(step) for reel in self._reels.values()]], cell=CELL)

    def gif(self) -> bytes:
        """The film as an animated GIF that repeats, with its steps in the comment; empty if there are no frames."""
        if not self._reels:
            return b""
        steps, frames = zip(*self, strict=True)
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
