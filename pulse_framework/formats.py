"""Which kinds of picture files are read."""

import importlib.util
from functools import cache
from pathlib import Path

from PIL import features

__all__ = ["KINDS", "SUFFIXES", "advice", "formats"]

KINDS = "an image (PNG, JPEG, WebP, BMP, TIFF, GIF, AVIF or HEIC)"
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif")
"""Of the names of pictures, in small letters."""
_HEIC = (".heic", ".heif")


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that can be read here: AVIF if Pillow was built with it, HEIC if pillow-heif is installed."""
    more = ("AVIF",) if features.check("avif") else ()
    if importlib.util.find_spec("pillow_heif") is None:
        return ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", *more)
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", *more, "HEIF")


def advice(path: str) -> str:
    """What to do about a file that is none of them, going by its name."""
    suffix = Path(path).suffix.lower()
    if suffix in _HEIC and "HEIF" not in formats():
        return "pip install pulse-latent[heic]"
    return "install a Pillow with AVIF" if suffix == ".avif" and "AVIF" not in formats() else "convert it"
