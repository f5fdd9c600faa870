"""How a generator wants its images to lie, a word on inputs that lie otherwise, and the warning of generators of faces."""

import contextlib
import importlib.util
import math
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.nn import functional

from pulse_framework.cli.options import say
from pulse_framework.faces import FaceDetector, Framing
from pulse_framework.faces.dlib_landmarks import DlibDetector, dlib_missing
from pulse_framework.home import cache_folder
from pulse_framework.images import ReadError, read_image
from pulse_framework.runtime import Source
from pulse_framework.weights import Card, read_card

__all__ = ["card_of", "framing_of", "unaligned", "warn_once"]

WARNING = (
    "PULSE makes faces of people who do not exist and cannot identify anyone: an answer agrees with the measurement, and so do"
    " very many others (said once; every picture says it too)"
)

LOOKED_AT = 16
"""How many inputs of a search are looked at."""
LEGIBLE = 32
"""Pixels a side from which a face in an aligned picture can be found."""
ENLARGED = 256
"""Pixels a side to which they are enlarged for that."""
OFF, TURNED, GROWN = 0.12, 15.0, 1.3
"""From where on a crop is not the generator's: shift in sides, degrees, ratio of the sides."""


def card_of(config: DictConfig) -> Card | None:
    """The card of the configured generator's weights, None if it has none."""
    for node in _nodes(OmegaConf.to_container(config.generator)):
        if node.get("_target_") == "pulse_framework.weights.fetch" and isinstance(node.get("card"), str):
            return read_card(node["card"])
    return None


def framing_of(config: DictConfig) -> Framing | None:
    """How the configured generator's images lie about their subject, None if nothing is known."""
    card = card_of(config)
    return Framing(**card.framing) if card is not None and card.framing is not None else None


def warn_once(config: DictConfig) -> None:
    """Say the warning of the cards, for a generator of faces, the first time that one is used on this machine."""
    framing = framing_of(config)
    told = cache_folder("told") / "invented-faces"
    if framing is None or framing.by != "ffhq" or told.exists():
        return
    say(f"pulse: {WARNING}")
    with contextlib.suppress(OSError):  # where nothing can be kept, it is said again
        told.parent.mkdir(parents=True, exist_ok=True)
        told.touch()


def unaligned(config: DictConfig, sources: Sequence[Source]) -> list[str]:
    """Notes on inputs in which a face lies otherwise than in the generator's images, if dlib is installed to see it.

    Pictures of less than 32 pixels a side say too little, and of many inputs only the first are looked at.
    """
    pictures = [source for source in sources if source.picture and min(source.shape) >= LEGIBLE][:LOOKED_AT]
    if not pictures or importlib.util.find_spec("dlib") is None or dlib_missing():
        return []
    framing = framing_of(config)
    if framing is None or framing.by != "ffhq":
        return []
    look, notes = DlibDetector(), []
    for source in pictures:
        how = _astray(source, look, framing)
        if how:
            notes.append(
                f"{source.path}: the face lies otherwise than in the generator's images ({how}); if the answers are poor, cut it"
                " out anew by `pulse align`"
            )
    return notes


def _astray(source: Source, look: FaceDetector, framing: Framing) -> str:
    """How a picture differs from a crop made for the generator; empty if it does not, or if no face is seen."""
    try:
        picture = read_image(source.path)
    except ReadError:
        return ""
    scale = ENLARGED / max(picture.shape[1:])
    if scale > 1:
        size = [round(side * scale) for side in picture.shape[1:]]
        picture = functional.interpolate(picture[None], size, mode="bicubic", align_corners=False)[0]
    faces = look(picture)
    if not faces:
        return ""
    square, expected = framing.square(max(faces, key=lambda face: face.size)), Framing.middle(*picture.shape[1:])
    shift = math.dist(square.centre, expected.centre) / expected.side
    grown = square.side / expected.side
    ways = [f"{shift:.0%} off the middle"] if shift > OFF else []
    ways += [f"turned by {square.degrees:.0f} degrees"] if abs(square.degrees) > TURNED else []
    ways += (
        [f"{1 / grown:.1f} times as large" if grown < 1 else f"cropped to 1/{grown:.1f}"] if not 1 / GROWN < grown < GROWN else []
    )
    return ", ".join(ways)


def _nodes(value: object) -> Iterator[dict[str, Any]]:
    """All mappings in a configuration."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from _nodes(part)
