"""Photos as files: what is kept of one that gets new faces, and how they are put in.

A photo is worked on upright, in 8 bits; what is written is a PNG, so that nothing outside the faces changes. Colour profile,
EXIF, transparency and greyness are kept; the PNG tells that its faces are synthetic, as text and as IPTC's ``DigitalSourceType``
(IPTC, Guidance on using Digital Source Type, 2023).
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pulse_framework.faces.alignment import Square, place
from pulse_framework.files import write_atomic
from pulse_framework.images import ReadError, read_image

__all__ = ["Photo", "read_photo"]

_ORIENTATION = 0x0112
_FEATHER = 0.15
"""Of a face's side: how far its edge fades into the photo."""
SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"><Iptc4xmpExt:DigitalSourceType>{source}'
    "</Iptc4xmpExt:DigitalSourceType></rdf:Description></rdf:RDF></x:xmpmeta>"
)


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo, upright.

    Attributes:
        pixels: What is seen, uint8, (H, W, 3); transparent pixels have their own colour.
        picture: The same for the search, (3, H, W) in [0, 1]; transparent pixels over white.
        alpha: Opacity, uint8, (H, W); None if all is opaque.
        grey: Whether the file has no colours.
        exif: EXIF of the file, its orientation struck.
        icc: Colour profile.
        note: What of the file is not kept; empty if all is.
    """

    pixels: np.ndarray
    picture: Float[Tensor, "3 H W"]
    alpha: np.ndarray | None
    grey: bool
    exif: bytes
    icc: bytes | None
    note: str

    def enlarged(self, scale: int) -> np.ndarray:
        """The pixels, Lanczos-enlarged; untouched at 1."""
        height, width = self.pixels.shape[:2]
        image = Image.fromarray(self.pixels)
        return np.asarray(image if scale == 1 else image.resize((width * scale, height * scale), Image.Resampling.LANCZOS))

    def with_face(self, canvas: np.ndarray, face: Float[Tensor, "3 h w"], square: Square) -> np.ndarray:
        """The enlarged photo with one upright face put in, its edge feathered; elsewhere not a bit changes.

        Args:
            canvas: (H, W, 3), uint8.
            face: In [0, 1].
            square: Where it lies in the canvas.
        """
        height, width = canvas.shape[:2]
        top, left, bottom, right = square.window(height, width, margin=2)
        part = square.moved(-left, -top)
        placed, _ = place(face.detach().cpu().float(), part, bottom - top, right - left)
        share, covered = place(_faded(face.shape[-1])[None], part, bottom - top, right - left)
        weight = (share.clamp(0, 1) * covered).movedim(0, -1).numpy()
        old = canvas[top:bottom, left:right].astype(np.float32)
        new = (placed.clamp(0, 1) * 255).movedim(0, -1).numpy()
        if self.grey:
            new = new.mean(-1, keepdims=True)
        mixed = np.where(weight > 0, np.rint(old + weight * (new - old)), old).astype(np.uint8)
        out = canvas.copy()
        out[top:bottom, left:right] = mixed
        return out

    def write(self, canvas: np.ndarray, path: Path, text: Mapping[str, str]) -> None:
        """Write a canvas as PNG with what is kept of the photo; ``text``, if there is any, tells how its faces were made.

        Raises:
            OSError: The file cannot be written.
        """
        image = Image.fromarray(canvas)
        image = image.convert("L") if self.grey else image
        if self.alpha is not None:
            alpha = Image.fromarray(self.alpha)
            image.putalpha(alpha if alpha.size == image.size else alpha.resize(image.size, Image.Resampling.BICUBIC))
        info = PngInfo()
        for key, value in text.items():
            info.add_itxt(key, value)
        if text:
            info.add_itxt("XML:com.adobe.xmp", _XMP.format(source=escape(SYNTHETIC)))
        file = io.BytesIO()
        image.save(file, format="PNG", pnginfo=info, exif=self.exif, icc_profile=self.icc)
        write_atomic(path, file.getvalue())


def read_photo(path: Path) -> Photo:
    """Read a photo of any kind that ``read_image`` reads.

    Raises:
        ReadError: It cannot be read.
    """
    picture = read_image(path)
    try:
        with Image.open(path) as opened:
            frames = getattr(opened, "n_frames", 1)
            notes = [f"only the first of {frames} frames is kept"] if frames > 1 else []
            mode, exif, icc = opened.mode, opened.getexif(), opened.info.get("icc_profile")
            image = ImageOps.exif_transpose(opened)
    except (OSError, ValueError, SyntaxError) as error:
        raise ReadError(f"{path}: expected a photo, got {' '.join(str(error).split())}; convert it") from error
    exif.pop(_ORIENTATION, None)
    if mode.startswith(("I", "F")):
        notes.append("it is kept in 8 bits")
        return Photo(_levels(picture), picture, None, True, exif.tobytes(), icc, "; ".join(notes))
    if mode == "CMYK":
        notes.append("CMYK is kept as RGB, without its colour profile")
        icc = None
    transparent = image.has_transparency_data
    rgba = image.convert("RGBA" if transparent else "RGB")
    pixels = np.asarray(rgba)
    alpha = pixels[..., 3].copy() if transparent else None
    grey = mode in ("1", "L", "LA")
    return Photo(pixels[..., :3].copy(), picture, alpha, grey, exif.tobytes(), icc, "; ".join(notes))


def _levels(picture: Tensor) -> np.ndarray:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).numpy()


def _faded(side: int) -> Tensor:
    """Weights of a face, 1 in the middle and smoothly 0 at its edge, (side, side)."""
    centre = (torch.arange(side) + 0.5) / side
    edge = (torch.minimum(centre, 1 - centre) / _FEATHER).clamp(0, 1)
    smooth = edge * edge * (3 - 2 * edge)
    return smooth[:, None] * smooth
