"""Photos as files: what is kept of one that gets new faces, and how they are put in.

A photo is turned upright as its EXIF orientation says, and the tag goes. What is written is lossless, so that nothing outside
the faces changes: TIFF and WebP stay what they are, anything else becomes PNG, or TIFF where PNG cannot hold its colours (CMYK).
EXIF, XMP, colour profile (ICC), the text of PNG, alpha, greyness and 16 bits of grey are kept. XMP and the text of PNG tell that
faces are synthetic, in the words of the IPTC (Guidance on using Digital Source Type, 2023).
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pulse_framework.faces.alignment import Square, place
from pulse_framework.files import write_atomic
from pulse_framework.images import opened, to_tensor

__all__ = ["SYNTHETIC", "Photo", "read_photo"]

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""The IPTC's word for pictures with parts that a trained model has made."""

_KEPT = ("L", "LA", "RGB", "RGBA", "CMYK", "I;16")
_SUFFIXES = {"PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
_FEATHER = 0.15
"""Of a face's side: how far its edge fades into the photo."""
_GREY = (0.299, 0.587, 0.114)
_DESCRIPTION = (
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' xmlns:pulse="urn:pulse-latent:1">'
    "<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType><pulse:settings>{settings}</pulse:settings>"
    "</rdf:Description>"
)
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{description}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo, decoded once.

    Attributes:
        image: Upright, in one of the modes L, LA, RGB, RGBA, CMYK and I;16.
        format: Of what is written: PNG, TIFF or WEBP.
        saving: What Pillow needs to write it: metadata, and how to be lossless.
        note: What of the file is not kept; empty if all is.
    """

    image: Image.Image
    format: str
    saving: Mapping[str, Any]
    note: str = ""

    @property
    def suffix(self) -> str:
        """Of the name of what is written."""
        return _SUFFIXES[self.format]

    @cached_property
    def picture(self) -> Float[Tensor, "3 H W"]:
        """The photo as ``read_image`` gives it: RGB, transparent pixels over white."""
        return to_tensor(self.image)

    def enlarged(self, scale: int) -> "Photo":
        """The photo with ``scale`` times the pixels on each side, by a Lanczos kernel."""
        if scale == 1:
            return self
        size, kind = (self.image.width * scale, self.image.height * scale), Image.Resampling.LANCZOS
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
        saving = dict(self.saving)
        xmp = _marked(saving.pop("xmp"), json.dumps(dict(text))) if text else saving.pop("xmp")
        if self.format == "PNG":
            info = PngInfo()
            for key, value in {**saving.pop("text"), **text, **({"XML:com.adobe.xmp": xmp.decode()} if xmp else {})}.items():
                info.add_itxt(key, str(value))
            saving["pnginfo"] = info
        elif self.format == "TIFF" and xmp:
            saving["exif"] = exif = Image.Exif()
            exif.update({**self.saving.get("exif", {}), 700: xmp})
        elif xmp:
            saving["xmp"] = xmp
        file = io.BytesIO()
        self.image.save(file, format=self.format, **saving)
        write_atomic(path, file.getvalue())

    def _coloured(self, rgb: Tensor) -> Tensor:
        """RGB in the colours of this photo's mode, in [0, 1]."""
        if self.image.mode in ("L", "LA", "I;16"):
            return (rgb * torch.tensor(_GREY).view(3, 1, 1)).sum(0, keepdim=True)
        return torch.cat([1 - rgb, torch.zeros_like(rgb[:1])]) if self.image.mode == "CMYK" else rgb


def read_photo(path: str | Path) -> Photo:
    """Read a photo of any kind that ``read_image`` reads, once.

    Palettes become true colours. Of an animation the first frame is taken; of 16-bit colour, the upper 8 bits, which is what
    Pillow decodes; the note says so.

    Raises:
        ReadError: As ``read_image``.
    """
    with opened(path) as image:
        kind = image.format if image.format in _SUFFIXES else "TIFF" if image.mode == "CMYK" else "PNG"
        frames = getattr(image, "n_frames", 1)
        notes = [f"only the first of {frames} frames is kept"] if frames > 1 else []
        notes += ["its 16 bits a channel are kept in 8"] if _deep_colour(path) else []
        image.load()
        text = {key: value for key, value in getattr(image, "text", {}).items() if key != "XML:com.adobe.xmp"}
        icc = image.info.get("icc_profile")
        upright = image if image.format == "TIFF" else ImageOps.exif_transpose(image)
        xmp = upright.info.get("xmp") or upright.info.get("XML:com.adobe.xmp") or b""
        exif = _exif(upright.getexif())
        made = _in_a_kept_mode(upright)
    saving: dict[str, Any] = {"xmp": xmp.encode() if isinstance(xmp, str) else xmp}
    saving |= {"icc_profile": icc} if icc else {}
    saving |= {"exif": exif} if len(exif) else {}
    saving |= {"text": text} if kind == "PNG" else {}
    saving |= {"lossless": True, "exact": True} if kind == "WEBP" else {}
    saving |= {"compression": "tiff_adobe_deflate"} if kind == "TIFF" else {}
    return Photo(made, kind, saving, "; ".join(notes))


def _in_a_kept_mode(image: Image.Image) -> Image.Image:
    """The pixels alone, in a mode that can be altered without loss."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode in _KEPT and not (image.has_transparency_data and image.mode in ("L", "RGB")):
        made = image.copy()
    else:
        made = image.convert("RGBA" if image.has_transparency_data else "RGB")
    made.info = {}
    return made


_LAYOUT = frozenset(
    (*range(256, 260), 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 700, 34675)
)
"""Tags that say how a TIFF lies in its file, or are written otherwise."""


def _exif(exif: Image.Exif) -> Image.Exif:
    """What is said of the photo, without what is said of the file."""
    for tag in _LAYOUT & set(exif):
        del exif[tag]
    return exif


def _deep_colour(path: str | Path) -> bool:
    """Whether a PNG's header says 16 bits a channel, and colour or alpha."""
    with Path(path).open("rb") as file:
        head = file.read(26)
    return len(head) == 26 and head.startswith(b"\x89PNG") and head[24] == 16 and head[25] != 0


def _marked(xmp: bytes, settings: str) -> bytes:
    """An XMP packet that says what is synthetic, beside what the photo's own says."""
    description = _DESCRIPTION.format(source=SYNTHETIC, settings=escape(settings)).encode()
    head, end, tail = xmp.rpartition(b"</rdf:RDF>")
    return head + description + end + tail if end else _PACKET.format(description=description.decode()).encode()


def _faded(side: int) -> Tensor:
    """Weights of a face, 1 in the middle and smoothly 0 at its edge, (side, side)."""
    centre = (torch.arange(side) + 0.5) / side
    edge = (torch.minimum(centre, 1 - centre) / _FEATHER).clamp(0, 1)
    smooth = edge * edge * (3 - 2 * edge)
    return smooth[:, None] * smooth
