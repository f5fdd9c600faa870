"""What is said of a photo, apart from its pixels: read so that it outlives the file, and written with another picture.

EXIF, XMP, the colour profile (ICC), pixels per inch and the text of PNG. Whatever of these is so damaged that no file can be
written with it is left out, and that is told.
"""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from pulse_framework.provenance import COMPOSITE, XMP, marked

__all__ = ["Metadata"]

_LAYOUT = frozenset(
    (*range(256, 260), 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 700, 34675)
)
"""Tags that say how a TIFF lies in its file, or are written otherwise."""
_INNER = frozenset((ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo))
"""Directories in EXIF, which Pillow writes into a TIFF only if that is not compressed."""
_XMP_TAG = 700


@dataclass(frozen=True)
class Metadata:
    """Of one photo; empty where nothing is said.

    Attributes:
        exif: As Pillow encodes it, without orientation and layout.
        xmp: The packet.
        profile: ICC colour profile.
        dpi: Pixels per inch, across and down.
        text: Of PNG, by keyword.
    """

    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    dpi: tuple[float, ...] = ()
    text: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(image: Image.Image, upright: Image.Image) -> "Metadata":
        """That of an open file; ``upright`` is the decoded picture after its orientation was applied."""
        xmp = upright.info.get("xmp") or upright.info.get(XMP) or b""
        return Metadata(
            exif=_exif(upright),
            xmp=xmp.encode() if isinstance(xmp, str) else bytes(xmp),
            profile=image.info.get("icc_profile") or b"",
            dpi=tuple(float(value) for value in image.info.get("dpi", ())),
            text={key: str(value) for key, value in getattr(image, "text", {}).items() if key != XMP},
        )

    def encoded(self, image: Image.Image, form: str, told: Mapping[str, str]) -> bytes:
        """A file with an image and this metadata, and nothing lost.

        Args:
            image: In a mode that the format has.
            form: PNG, TIFF or WEBP.
            told: How its faces were made; empty if none were.
        """
        xmp = marked(self.xmp, told, COMPOSITE) if told else self.xmp
        saving: dict[str, object] = {"lossless": True, "exact": True} if form == "WEBP" else {}
        saving |= {"icc_profile": self.profile} if self.profile else {}
        saving |= {"dpi": self.dpi} if self.dpi and form != "WEBP" else {}
        saving |= {"exif": self.exif} if self.exif else {}
        if form == "PNG":
            saving["pnginfo"] = info = PngInfo()
            for key, value in {**self.text, **told, **({XMP: xmp.decode()} if xmp else {})}.items():
                info.add_itxt(key, value)
        elif form == "TIFF":
            saving["exif"] = exif = Image.Exif()
            exif.load(self.exif)
            exif.update({_XMP_TAG: xmp} if xmp else {})
            saving |= {} if _INNER & set(exif) else {"compression": "tiff_adobe_deflate"}
        elif xmp:
            saving["xmp"] = xmp
        file = io.BytesIO()
        image.save(file, format=form, **saving)
        return file.getvalue()

    def sound(self, mode: str, form: str) -> tuple["Metadata", list[str]]:
        """What of it can be written, tried on a picture of one pixel, and the names of what cannot."""
        if self._fits(mode, form):
            return self, []
        kept, lost = Metadata(), []
        for part in fields(self):
            more = replace(kept, **{part.name: getattr(self, part.name)})
            if more._fits(mode, form):
                kept = more
            else:
                lost.append(part.name)
        return kept, lost

    def _fits(self, mode: str, form: str) -> bool:
        """Whether a file can be written with it, and read."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with Image.open(io.BytesIO(self.encoded(Image.new(mode, (1, 1)), form, {}))) as again:
                    again.load()
                    again.getexif().tobytes()
        except Exception:  # noqa: BLE001 - encoders raise nearly anything on damaged metadata
            return False
        return True


def _exif(image: Image.Image) -> bytes:
    """What is said of the photo, without what is said of the file; loaded whole, its inner directories (exposure, place) too."""
    try:
        exif = image.getexif()
        for tag in _LAYOUT & set(exif):
            del exif[tag]
        return exif.tobytes() if len(exif) else b""
    except Exception:  # noqa: BLE001 - damaged EXIF raises nearly anything; ``sound`` leaves it out
        return bytes(image.info.get("exif") or b"damaged")
