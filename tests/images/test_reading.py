"""Pictures that are read: every format and mode against what was drawn, every bad file against its message."""

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin

from pulse_framework import images
from pulse_framework.images import ReadError, peek, read_image, to_tensor
from tests.images.drawn import RGB, TRUTH, close, refused


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width, height, bits, colour, rows, extra=b""):
    """A PNG written by hand, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "webp"])
def test_lossless_formats(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    picture = read_image(path)
    assert picture.dtype == torch.float32
    assert picture.is_contiguous()
    assert torch.equal(picture, TRUTH)
    assert peek(str(path)) == (5, 7)


def test_jpeg_and_gif(tmp_path):
    Image.new("RGB", (16, 8), (200, 100, 50)).save(tmp_path / "a.jpg", quality=95)
    close(read_image(tmp_path / "a.jpg"), torch.tensor([200, 100, 50])[:, None, None].expand(3, 8, 16) / 255, atol=3 / 255)
    red, blue = (Image.new("RGB", (4, 3), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "a.gif", save_all=True, append_images=[blue])
    close(read_image(tmp_path / "a.gif"), np.broadcast_to(np.array([1, 0, 0])[:, None, None], (3, 3, 4)).copy())


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey(file, mode):
    grey = Image.fromarray(RGB[..., 0]).convert(mode)
    grey.save(file)
    close(read_image(file), np.repeat(np.asarray(grey.convert("L"))[None] / 255, 3, 0))


def test_alpha_is_composited_over_white(file):
    alpha = np.arange(35, dtype=np.uint8).reshape(5, 7, 1) * 7
    Image.fromarray(np.concatenate([RGB, alpha], 2)).save(file)
    close(read_image(file), (RGB / 255 * (alpha / 255) + 1 - alpha / 255).transpose(2, 0, 1))
    Image.fromarray(np.concatenate([RGB[..., :1], alpha], 2), "LA").save(file)
    expected = RGB[..., :1] / 255 * (alpha / 255) + 1 - alpha / 255
    close(read_image(file), expected.repeat(3, 2).transpose(2, 0, 1))


def test_palette_and_colour_key(file):
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    palette = palette.convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.putdata([0, 1, 2])
    palette.save(file)
    close(read_image(file), np.eye(3)[:, None])
    palette.save(file, transparency=bytes([0, 255, 255]))
    close(read_image(file), np.array([[[1, 0, 0]], [[1, 1, 0]], [[1, 0, 1]]]))
    Image.fromarray(np.array([[0, 100, 200]], dtype=np.uint8)).save(file, transparency=100)
    close(read_image(file), np.repeat(np.array([[[0, 1, 200 / 255]]]), 3, 0))


def test_16_bits(tmp_path, file):
    grey = np.array([[0, 1, 256], [40000, 65534, 65535]], dtype=np.uint16)
    expected = np.repeat(grey[None] / 65535, 3, 0)
    for path in (file, tmp_path / "a.tif"):
        Image.fromarray(grey).save(path)
        close(read_image(path), expected)
    file.write_bytes(raw_png(3, 1, 16, 0, b"\0" + grey[1].astype(">u2").tobytes(), chunk(b"tRNS", struct.pack(">H", 40000))))
    close(read_image(file), np.repeat(np.array([[[1, 65534 / 65535, 1]]]), 3, 0))
    colour = np.array([[0, 30000, 65535]], dtype=">u2")
    file.write_bytes(raw_png(1, 1, 16, 2, b"\0" + colour.tobytes()))
    close(read_image(file), colour.astype(float).reshape(3, 1, 1) / 65535, atol=1 / 255)


def test_cmyk(tmp_path):
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for name in ("a.jpg", "a.tif"):
        cmyk.save(tmp_path / name)
        close(read_image(tmp_path / name), torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 8, 8), atol=3 / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_exif_orientation(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    picture = read_image(path)
    assert torch.equal(picture, torch.from_numpy(upright.copy()).movedim(-1, 0) / 255)
    assert peek(path) == picture.shape[1:] == ((7, 5) if orientation >= 5 else (5, 7))
    with Image.open(path) as image:
        assert torch.equal(to_tensor(image), picture)


def test_damaged_exif_does_not_hide_the_picture(file):
    Image.fromarray(RGB).save(file, exif=b"Exif\0\0II*\0garbage that is no directory")
    assert torch.equal(read_image(file), TRUTH)
    assert peek(file) == (5, 7)


def test_peek_decodes_nothing(file, monkeypatch):
    Image.fromarray(RGB).save(file)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert peek(file) == (5, 7)


def test_bad_paths(tmp_path, file, monkeypatch):
    refused(tmp_path / "no.png", "no such file")
    refused(tmp_path, "a folder")
    refused(str(file) + "\0", "null")
    file.touch()
    refused(file, "an empty file")
    file.write_text("<html>not found</html>")
    refused(file, "something else")
    refused(file / "below.png", "expected a readable file")

    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    refused(file, "permission")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif"])
def test_truncated_files(tmp_path, suffix):
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    memory = io.BytesIO()
    Image.fromarray(noise).save(memory, format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    data = memory.getvalue()
    path = tmp_path / f"a.{suffix}"
    for share in (0.02, 0.2, 0.5, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        refused(path, "got", read_image)


def test_flipped_bits_give_a_picture_or_a_read_error(tmp_path):
    rng = np.random.default_rng(2)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        memory = io.BytesIO()
        Image.fromarray(RGB).save(memory, format=kind)
        for _ in range(25):
            data = bytearray(memory.getvalue())
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(0, 256)
            (tmp_path / "a").write_bytes(data)
            with contextlib.suppress(ReadError):
                assert read_image(tmp_path / "a").isfinite().all()


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (60_000, 60_000)])
def test_gigantic_pictures_are_refused_from_the_header(file, width, height):
    file.write_bytes(raw_png(width, height, 8, 0, b""))
    with warnings.catch_warnings(record=True) as seen:
        refused(file, "100,000,000 pixels")
    assert not seen


def test_just_below_the_limit_no_warning_leaks(file):
    file.write_bytes(raw_png(10_000, 10_000, 8, 0, b""))  # Pillow warns from 89 million pixels on
    with warnings.catch_warnings(record=True) as seen:
        assert peek(file) == (10_000, 10_000)
    assert not seen


def test_own_limit_holds_for_pil_images(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 30)
    refused("PIL image", "at most 30 pixels", lambda _: to_tensor(Image.fromarray(RGB)))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_of_unknown_range_are_refused(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", f"mode {mode!r}", read_image, to_tensor)
