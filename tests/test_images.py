"""Pictures: every format and mode against what was drawn, every bad file against its message."""

import contextlib
import io
import struct
import subprocess
import sys
import warnings
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from pulse_framework import images
from pulse_framework.grid import grid
from pulse_framework.images import ReadError, factor_between, peek, read_image, to_tensor, write_png
from pulse_framework.runtime.intake import find_images

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
TRUTH = torch.from_numpy(RGB).movedim(-1, 0) / 255


def close(a, b, atol=1e-6):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float32), rtol=0, atol=atol)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width, height, bits, colour, rows, extra=b""):
    """A PNG written by hand, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "picture.png"


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


def refused(path, words, *readers):
    for reader in readers or (read_image, peek, to_tensor):
        with pytest.raises(ReadError) as caught:
            reader(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        for word in ("expected", "got", ";", words):
            assert word in message


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


def test_write_png_clamps_and_rounds(file):
    ramp = torch.tensor([[[-1.0, 0, 0.4999 / 255, 0.5001 / 255, 1, 7]]])
    assert write_png(ramp.expand(3, 1, 6).clone().requires_grad_(), file) == file
    close(read_image(file) * 255, torch.tensor([[[0, 0, 0, 1, 255, 255]]]).expand(3, 1, 6))
    write_png(ramp.to(torch.bfloat16), str(file), {"seed": "0", "note": "naïve → 1"})
    with Image.open(file) as image:
        assert image.mode == "L"
        assert image.text == {"seed": "0", "note": "naïve → 1"}


def test_written_pictures_read_back_the_same(file):
    assert torch.equal(read_image(write_png(TRUTH, file)), TRUTH)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, file, monkeypatch):
    write_png(TRUTH, file)
    before = file.read_bytes()

    def fail(self, target, **_):
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        write_png(1 - TRUTH, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 4, 4), torch.zeros(4, 4), torch.zeros(1, 3, 4, 4), torch.full((3, 2, 2), torch.nan)]
)
def test_what_is_no_picture_is_not_written(file, bad):
    with pytest.raises(ValueError, match=r"expected .* got"):
        write_png(bad, file)
    assert not file.exists()


def test_only_floats_are_written(file):
    for bad in (torch.zeros(3, 4, 4, dtype=torch.uint8), np.zeros((3, 4, 4))):
        with pytest.raises(TypeError, match="expected a tensor of floats"):
            write_png(bad, file)


def test_to_tensor_takes_every_kind(file):
    Image.fromarray(RGB).save(file)
    kinds = [file, str(file), Image.fromarray(RGB), RGB, RGB.astype(np.uint16) * 257, RGB / 255, np.float32(RGB) / 255]
    kinds += [RGB[:, ::-1][:, ::-1], (RGB.astype(np.uint16) * 257).astype(">u2"), torch.from_numpy(RGB).movedim(-1, 0)]
    for kind in kinds:
        close(to_tensor(kind), TRUTH)
    grey = RGB[..., 0]
    for kind in (grey, grey[..., None]):
        close(to_tensor(kind), TRUTH[:1].expand(3, -1, -1))
    close(to_tensor(np.concatenate([RGB, np.zeros_like(RGB[..., :1])], 2)), torch.ones(3, 5, 7))
    assert to_tensor(TRUTH) is TRUTH
    assert to_tensor(TRUTH[:1].double()).dtype == torch.float64
    assert to_tensor(TRUTH[:1]).shape == (1, 5, 7)


@pytest.mark.parametrize("bad", [None, 3, [[0.0]], np.zeros((4, 4), int), np.zeros((4, 4), bool), torch.zeros(3, 4, 4).long()])
def test_to_tensor_refuses_other_types(bad):
    with pytest.raises(TypeError, match=r"image: expected .* got"):
        to_tensor(bad)


@pytest.mark.parametrize(
    "bad",
    [
        *(np.zeros((3, 8, 8)), np.zeros(4), torch.zeros(1, 3, 4, 4), torch.zeros(4, 4, 3), torch.zeros(3, 0, 4)),
        *(RGB * 1.0, torch.full((3, 2, 2), -1.0), np.full((2, 2), np.nan)),
    ],
)
def test_to_tensor_refuses_other_shapes_and_ranges(bad):
    with pytest.raises(ValueError, match=r"image.*: expected .* got"):
        to_tensor(bad)


def test_find_images(tmp_path):
    for name in ("b.PNG", "a.jpeg", "sub/c.tif", "sub/deep/d.WebP", ".hidden.png", ".cache/e.png", "notes.txt", "sub/.f.part"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = ["a.jpeg", "b.PNG", "sub/c.tif", "sub/deep/d.WebP"]
    assert find_images([tmp_path]) == find_images(str(tmp_path)) == [tmp_path / name for name in names]
    kept = [tmp_path / "notes.txt", tmp_path / "missing.png", tmp_path / ".hidden.png"]
    assert find_images([kept[0], tmp_path / "sub", kept[1], str(kept[2])]) == [
        kept[0],
        *(tmp_path / n for n in names[2:]),
        *kept[1:],
    ]
    assert find_images([tmp_path / ".cache"]) == [tmp_path / ".cache" / "e.png"]
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "got none", find_images)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", deny)
    refused(tmp_path, "Permission denied", find_images)


def test_grid_places_and_enlarges():
    red = torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 2, 2)
    small = torch.tensor([[[0.0, 1.0], [0.25, 0.5]]])
    large = torch.rand((3, 4, 6), generator=torch.Generator().manual_seed(0))
    sheet = grid([[red, large], [small]], gap=1)
    assert sheet.shape == (3, 9, 13)
    assert torch.equal(sheet[:, :4, 7:], large)
    assert torch.equal(sheet[:, :4, 1:5], red[:, :1, :1].expand(3, 4, 4))  # 2 x 2 becomes 4 x 4, centred in 4 x 6
    enlarged = small.repeat_interleave(2, 1).repeat_interleave(2, 2).expand(3, 4, 4)
    assert torch.equal(sheet[:, 5:, 1:5], enlarged)
    white = torch.ones(9, 13, dtype=torch.bool)
    white[:4, 7:] = white[:4, 1:5] = white[5:, 1:5] = False
    assert (sheet[:, white] == 1).all()
    assert torch.equal(grid([[large * 3 - 1]]), (large * 3 - 1).clamp(0, 1))
    for bad in ([], [[]], [[torch.zeros(4, 4)]]):
        with pytest.raises(ValueError, match="grid: expected"):
            grid(bad)


@given(st.integers(1, 300), st.integers(1, 300))
def test_factor_between_gives_back_the_input_side(side, small):
    if small > side:
        with pytest.raises(ValueError, match="got"):
            factor_between((side, side), (small, small))
    else:
        factor = factor_between((side, side), (small, small))
        assert factor == Fraction(side, small)
        assert side // factor == small


def test_factor_between_axes():
    assert factor_between((64, 64), (10, 10)) == Fraction(32, 5)
    assert factor_between((65, 33), (32, 16)) == Fraction(65, 32)
    for bad in ((16, 8), (32, 17), (0, 0)):
        with pytest.raises(ValueError, match="expected"):
            factor_between((64, 64), bad)


def test_importing_is_cheap():
    heavy = ("pytorch_lightning", "hydra", "torchmetrics", "wandb")
    code = f"import sys, pulse_framework.images; sys.exit(any(name in sys.modules for name in {heavy}))"
    subprocess.run([sys.executable, "-c", code], check=True)
