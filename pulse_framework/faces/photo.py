"""Photos as files: what is kept of one that gets new faces, and how they are put in.

A photo is turned upright as its EXIF orientation says, and the tag goes. What is written is lossless, so that nothing outside
the faces changes: TIFF and WebP stay what they are, anything else becomes PNG, or TIFF where PNG cannot hold its colours (CMYK).
EXIF, XMP, colour profile (ICC), the text of PNG, alpha, greyness and 16 bits of grey are kept. XMP and the text of PNG tell that
faces are synthetic; see ``pulse_framework.provenance``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from pulse_framework.faces.alignment import Square, place
from pulse_framework.faces.metadata import Metadata
from pulse_framework.files import write_atomic
from pulse_framework.images import MAX_PIXELS, opened, to_tensor

__all__ = ["Photo", "read_photo"]

_KEPT = ("L", "LA", "RGB", "RGBA", "CMYK", "I;16")
_SUFFIXES = {"PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
_FEATHER = 0.15
"""Of a face's side: how far its edge fades into the photo."""
_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo, decoded once.

    Attributes:
        image: Upright, in one of the modes L, LA, RGB, RGBA, CMYK and I;16.
        format: Of what is written: PNG, TIFF or WEBP.
        metadata: What is said of it.
        note: What of the file is not kept; empty if all is.
    """

    image: Image.Image
    format: str
    metadata: Metadata
    note: str = ""

    @property
    def suffix(self) -> str:
        """Of the name of what is written."""
        return _SUFFIXES[self.format]

    @cached_property
    def picture(self) -> Float[Tensor, "3 H W"]:
        """The photo as ``read_image`` gives it: RGB, transparent pixels over white."""
        return to_tensor(self.image)

    def light(self) -> "Photo":
        """The same photo without its ``picture``, which is made anew when it is asked for."""
        return replace(self)

    def enlarged(self, scale: int) -> "Photo":
        """The photo with ``scale`` times the pixels on each side, by a Lanczos kernel."""
        return self if scale == 1 else self._resized((self.image.width * scale, self.image.height * scale))

    def overview(self, side: int) -> Float[Tensor, "3 h w"]:
        """The photo as RGB, of at most so many pixels a side."""
        share = side / max(self.image.size)
        if share >= 1:
            return self.picture
        return self._resized((max(1, round(self.image.width * share)), max(1, round(self.image.height * share)))).picture

    def _resized(self, size: tuple[int, int]) -> "Photo":
        """The photo at another (width, height)."""
        kind = Image.Resampling.LANCZOS
        if self.image.mode == "I;16":
            values = np.asarray(Image.fromarray(np.asarray(self.image).astype(np.float32)).resize(size, kind))
            made = Image.fromarray(values.round().clip(0, 65535).astype(np.uint16))
        else:
            made = self.image.resize(size, kind)
        return replace(self, image=made)

    def with_face(self, face: Float[Tensor, "3 h w"], square: Square) -> "Photo":
        """The photo with one upright face put in, its edge feathered; elsewhere not a bit changes.

        Args:
            face: In [0, 1].
            square: Where it lies.
        """
        top, left, bottom, right = square.window(self.image.height, self.image.width, margin=2)
        part = square.moved(-left, -top)
        placed, _ = place(face.detach().cpu().float(), part, bottom - top, right - left)
        share, covered = place(_faded(face.shape[-1])[None], part, bottom - top, right - left)
        return self.blended(placed, share.clamp(0, 1) * covered, top, left)

    def blended(self, picture: Float[Tensor, "3 h w"], mask: Float[Tensor, "1 h w"], top: int, left: int) -> "Photo":
        """The photo with a picture in it; where the mask is 0 every pixel stays, and so does alpha everywhere.

        Args:
            picture: RGB in [0, 1]; clamped.
            mask: 1 where the picture hides the photo, 0 where it is not seen.
            top: Row of the photo at which it begins.
            left: Column.
        """
        pixels = np.array(self.image)
        grey = pixels.ndim == 2
        pixels = pixels[..., None] if grey else pixels
        depth = np.iinfo(pixels.dtype).max
        part = pixels[top : top + picture.shape[1], left : left + picture.shape[2]]
        colours = self._coloured(picture.clamp(0, 1)).movedim(0, -1).numpy()
        count, weight = colours.shape[-1], mask.movedim(0, -1).numpy()
        mixed = (weight * colours * depth + (1 - weight) * part[..., :count]).round().clip(0, depth).astype(pixels.dtype)
        part[..., :count] = np.where(weight > 0, mixed, part[..., :count])
        made = Image.fromarray(pixels[..., 0] if grey else pixels, self.image.mode if self.image.mode == "CMYK" else None)
        return replace(self, image=made)

    def write(self, path: Path, text: Mapping[str, str]) -> None:
        """Write it with all that is kept; ``text``, if there is any, tells how its faces were made.

        Raises:
            OSError: It cannot be written.
        """
        write_atomic(path, self.metadata.encoded(self.image, self.format, text))

    def _coloured(self, rgb: Tensor) -> Tensor:
        """RGB in the colours of this photo's mode, in [0, 1]."""
        if self.image.mode in ("L", "LA", "I;16"):
            return (rgb * torch.tensor(_GREY).view(3, 1, 1)).sum(0, keepdim=True)
        return torch.cat([1 - rgb, torch.zeros_like(rgb[:1])]) if self.image.mode == "CMYK" else rgb


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo of any kind that ``read_image`` reads, once.

    Palettes become true colours. Of an animation the first frame is taken; of 16-bit colour, the upper 8 bits, which is what
    Pillow decodes; the note says so.

    Raises:
        ReadError: As ``read_image``.
    """
    with opened(path, max_pixels) as image:
        kind = image.format if image.format in _SUFFIXES else "TIFF" if image.mode == "CMYK" else "PNG"
        frames = getattr(image, "n_frames", 1)
        notes = [f"only the first of {frames} frames is kept"] if frames > 1 else []
        notes += [f"its {bits} bits a channel are kept in 8"] if (bits := _depth(image, path)) > 8 else []
        image.load()
        upright = _upright(image)
        made = _in_a_kept_mode(upright)
        metadata, lost = Metadata.of(image, upright).sound(made.mode, kind)
    notes += [f"its damaged {' and '.join(lost)} cannot be kept"] if lost else []
    return Photo(made, kind, metadata, "; ".join(notes))


def _upright(image: Image.Image) -> Image.Image:
    """The picture as its EXIF says that it was held; as it is if that is damaged. Of a TIFF, Pillow has turned it already."""
    try:
        return image if image.format == "TIFF" else ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - damaged EXIF raises nearly anything
        return image


def _in_a_kept_mode(image: Image.Image) -> Image.Image:
    """The pixels alone, in a mode that can be altered without loss."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode == "1":
        made = image.convert("L")
    elif image.mode in _KEPT and not (image.has_transparency_data and image.mode in ("L", "RGB")):
        made = image.copy()
    else:
        made = image.convert("RGBA" if image.has_transparency_data else "RGB")
    made.info = {}
    return made


def _depth(image: Image.Image, path: str | Path) -> int:
    """Bits a channel of a file whose header was read, if it has colour or alpha; else 8."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, ())
        return max(bits) if len(bits) > 1 else 8
    if image.format == "HEIF":
        return int(image.info.get("bit_depth") or 8)
    with Path(path).open("rb") as file:
        head = file.read(26)
    return 16 if len(head) == 26 and head.startswith(b"\x89PNG") and head[24] == 16 and head[25] != 0 else 8


def _faded(side: int) -> Tensor:
    """Weights of a face, 1 in the middle and smoothly 0 at its edge, (side, side)."""
    centre = (torch.arange(side) + 0.5) / side
    edge = (torch.minimum(centre, 1 - centre) / _FEATHER).clamp(0, 1)
    smooth = edge * edge * (3 - 2 * edge)
    return smooth[:, None] * smooth
