"""Pictures in files and in memory: reading, writing, finding them, and laying them out.

Everywhere a picture is a float tensor (C, H, W), RGB or grey, sRGB-coded, nominally in [0, 1], not clamped until saved.
Colours are taken as sRGB: embedded colour profiles are not applied. Transparent pixels are composited over white, on the coded
values, as web browsers do.
"""

import io
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pulse_framework.files import write_atomic
from pulse_framework.formats import KINDS, advice, formats

__all__ = ["MAX_PIXELS", "ReadError", "factor_between", "opened", "peek", "png_bytes", "read_image", "to_tensor", "write_png"]

MAX_PIXELS = 100_000_000
"""Largest picture that is read if nothing else is said, in pixels; checked in the file's header, before anything is decoded."""


_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_FLIPS = {1: (), 2: (2,), 3: (1, 2), 4: (1,), 5: (), 6: (2,), 7: (1, 2), 8: (1,)}
"""Axes of (C, H, W) to flip for each EXIF orientation; from 5 on, after swapping height and width."""


class ReadError(ValueError):
    """A picture cannot be read. The message is one line: where, expected, got, what to do."""


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Float[Tensor, "3 H W"]:
    """Read a picture as RGB, float32, in [0, 1], turned upright as its EXIF orientation says.

    Grey is repeated over the channels, CMYK converted without a profile; of an animation the first frame is taken. 16-bit grey
    keeps its precision; 16-bit colour keeps the upper 8 bits, which is what Pillow decodes.

    Raises:
        ReadError: The file is missing, a folder, unreadable, empty, damaged, larger than ``max_pixels`` or of another kind.
    """
    with opened(path, max_pixels) as image:
        return _decoded(image, str(path))


def peek(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) in pixels of the upright picture, from the file's header alone.

    Raises:
        ReadError: The file is missing, a folder, unreadable, empty, not a picture or larger than ``max_pixels``.
    """
    with opened(path, max_pixels) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def write_png(image: Float[Tensor, "C H W"], path: str | Path, text: Mapping[str, str] | None = None) -> Path:
    """Write a picture as ``png_bytes`` makes it; the file is there completely or not at all.

    Args:
        image: Grey (C = 1) or RGB (C = 3).
        path: Where to; a file that is there is replaced.
        text: Metadata, as PNG text chunks; a key has 1 to 79 Latin-1 characters.

    Returns:
        The path.

    Raises:
        TypeError: The image is not a tensor of floats.
        ValueError: It has another shape or values that are not finite.
        OSError: The file cannot be written.
    """
    path = Path(path)
    content = png_bytes(image, text, where=str(path))
    write_atomic(path, content)
    return path


def png_bytes(image: Float[Tensor, "C H W"], text: Mapping[str, str] | None = None, where: str = "picture") -> bytes:
    """A PNG file: clamped to [0, 1] and rounded to 8 bits.

    Args:
        image: Grey (C = 1) or RGB (C = 3).
        text: Metadata, as PNG text chunks; a key has 1 to 79 Latin-1 characters.
        where: Begins the message of an error.

    Raises:
        TypeError: The image is not a tensor of floats.
        ValueError: It has another shape or values that are not finite.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"{where}: expected a tensor of floats, got {got}; pass it through to_tensor first")
    _check_picture(image, where)
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).contiguous().numpy()
    info = PngInfo()
    for key, value in (text or {}).items():
        (info.add_itxt if key.startswith("XML:") else info.add_text)(key, value)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def to_tensor(image: str | Path | Image.Image | np.ndarray | Tensor) -> Float[Tensor, "C H W"]:
    """Anything that holds one picture, as a float tensor.

    Args:
        image: A path or a PIL image: read as ``read_image`` does. A NumPy array (H, W) or (H, W, C) with C of 1 (grey), 2 (grey,
            alpha), 3 (RGB) or 4 (RGB, alpha), of uint8, uint16 or floats in [0, 1]. A tensor (C, H, W) with C of 1 or 3, of
            uint8, uint16 or floats.

    Returns:
        RGB float32 (3, H, W) on the CPU for everything but a tensor, which keeps its channels, its device and its floating dtype.
        Floats may leave [0, 1] by at most one half, as noisy measurements do.

    Raises:
        ReadError: A file or a PIL image cannot be read.
        TypeError: The kind or the dtype is none of these.
        ValueError: The shape or the range is none of these.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        with _translated("PIL image"):
            _check_size(image, "PIL image", MAX_PIXELS)
            return _decoded(image, "PIL image")
    if isinstance(image, np.ndarray):
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
            raise ValueError(f"image array: expected shape (H, W) or (H, W, C) with C of 1 to 4, got {image.shape}")
        native = np.ascontiguousarray(image.astype(image.dtype.newbyteorder("=")).reshape(*image.shape[:2], -1))
        picture = _over_white(_scaled(torch.from_numpy(native)).float().movedim(-1, 0)).contiguous()
    elif isinstance(image, Tensor):
        picture = _scaled(image)
    else:
        raise TypeError(f"image: expected a path, a PIL image, a NumPy array or a tensor, got {type(image).__name__}")
    _check_picture(picture, "image")
    low, high = picture.min().item(), picture.max().item()
    if low < -0.5 or high > 1.5:
        raise ValueError(f"image: expected values in [0, 1], got {low:.4g} to {high:.4g}; rescale them")
    return picture


def factor_between(image_size: tuple[int, int], measurement_size: tuple[int, int]) -> Fraction:
    """The down-scale that takes images of one (height, width) to another, covering the whole of at least one axis.

    It is the smaller of H / h and W / w, so that floor(H / factor) = h and floor(W / factor) = w, exactly.

    Raises:
        ValueError: No factor of at least 1 does both.
    """
    if min(*image_size, *measurement_size) < 1:
        raise ValueError(f"down-scale factor: expected sizes of at least 1, got {image_size} and {measurement_size}")
    factor = min(Fraction(side, small) for side, small in zip(image_size, measurement_size, strict=True))
    if factor < 1 or tuple(floor(side / factor) for side in image_size) != tuple(measurement_size):
        (height, width), (h, w) = image_size, measurement_size
        raise ValueError(
            f"down-scale factor: expected an input of the proportions of {height} x {width} and not larger, got {h} x {w}"
            " (height x width); crop or shrink the input (`pulse align` cuts out faces), or give the factor"
        )
    return factor


@contextmanager
def _translated(where: str, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Turn whatever a decoder raises into a ReadError, and keep its warnings away: there is a picture, or there is an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ReadError:
        raise
    except Image.DecompressionBombError as error:
        raise ReadError(f"{where}: expected at most {max_pixels:,} pixels, got many more; shrink it") from error
    except UnidentifiedImageError as error:
        raise ReadError(f"{where}: expected {KINDS}, got something else; {advice(where)}") from error
    except MemoryError as error:
        raise ReadError(f"{where}: expected a picture that fits in memory, got one that does not; shrink it") from error
    except Exception as error:  # decoders raise nearly anything on damaged data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"{where}: expected {KINDS}, got a damaged or truncated one ({reason}); get it anew") from error


@contextmanager
def opened(path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The picture with its header read and its size checked, nothing decoded yet.

    Raises:
        ReadError: As ``peek``, and whatever a decoder raises inside of the context.
    """
    path = Path(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # to open a pipe waits for whoever writes to it
            raise ReadError(f"{path}: expected {KINDS}, got a pipe or a device; give a file")
        file = path.open("rb")
    except ReadError:
        raise
    except FileNotFoundError as error:
        raise ReadError(f"{path}: expected {KINDS}, got no such file; check the path") from error
    except IsADirectoryError as error:
        raise ReadError(f"{path}: expected {KINDS}, got a folder; give the files in it") from error
    except PermissionError as error:
        raise ReadError(f"{path}: expected a readable file, got permission denied; change its permissions") from error
    except (OSError, ValueError) as error:
        raise ReadError(f"{path}: expected a readable file, got {error}; check the path") from error
    with file, _translated(str(path), max_pixels):
        if not file.read(1):
            raise ReadError(f"{path}: expected {KINDS}, got an empty file; get it anew")
        file.seek(0)
        with _trusted(max_pixels), Image.open(file, formats=formats()) as image:
            _check_size(image, str(path), max_pixels)
            yield image


@contextmanager
def _trusted(max_pixels: int) -> Iterator[None]:
    """Let Pillow, which refuses pictures of more than 179 million pixels, read larger ones too, if those are allowed."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None if before is None else max(before, max_pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _check_size(image: Image.Image, where: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ReadError(
            f"{where}: expected at most {max_pixels:,} pixels, got {height} x {width} = {width * height:,} (height x width);"
            " shrink or crop it, or allow more (data.max_pixels; --max-pixels of photos)"
        )
    if width * height == 0:
        raise ReadError(f"{where}: expected {KINDS}, got one without pixels ({height} x {width})")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8, from the header: PNG's own ``getexif`` would decode the pixels, and TIFF turns by itself."""
    if image.format == "TIFF":
        return 1
    try:
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error, OSError):  # damaged metadata; the pixels may be well
        return 1
    return value if value in _FLIPS else 1


def _decoded(image: Image.Image, where: str) -> Tensor:
    """Decode, turn upright and convert to float32 RGB in [0, 1], shape (3, H, W)."""
    if image.mode not in _EIGHT_BIT + _SIXTEEN_BIT:
        raise ReadError(f"{where}: expected 8 or 16 bits a channel, grey or colour, got Pillow mode {image.mode!r}; convert it")
    orientation = _orientation(image)
    image.load()
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image)
        values = np.where(values == image.info.get("transparency", -1), 65535, values)[..., None].astype(np.uint16)
    else:
        values = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    pixels = torch.from_numpy(values).movedim(-1, 0)  # turned before they are floats, which take four times the memory
    pixels = (pixels.mT if orientation >= 5 else pixels).flip(_FLIPS[orientation]).contiguous()
    return _over_white(pixels.to(torch.float32).div_(65535 if pixels.dtype == torch.uint16 else 255)).contiguous()


def _over_white(picture: Tensor) -> Tensor:
    """RGB of grey (C = 1), grey and alpha (2), RGB (3) or RGB and alpha (4)."""
    if picture.shape[0] in (2, 4):
        alpha = picture[-1:]
        picture = picture[:-1] * alpha + (1 - alpha)
    return picture.expand(3, -1, -1)


def _scaled(values: Tensor) -> Tensor:
    if values.dtype in (torch.uint8, torch.uint16):
        return values.float() / torch.iinfo(values.dtype).max
    if not values.is_floating_point():
        raise TypeError(f"image: expected uint8, uint16 or floats, got {values.dtype}; convert it")
    return values


def _check_picture(picture: Tensor, where: str) -> None:
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or picture.numel() == 0:
        raise ValueError(f"{where}: expected one picture (C, H, W) with C of 1 or 3, got shape {tuple(picture.shape)}")
    if not bool(picture.isfinite().all()):
        raise ValueError(f"{where}: expected finite values, got NaN or infinity")
