"""Malformed photos: a picture that can be written again, or one line that says what is wrong; never anything else."""

import io
import os
import struct
import zlib
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pulse_framework.faces.photo import read_photo
from pulse_framework.images import ReadError
from tests.faces.test_photo import ICC, XMP, exif, pixels, sixteen_bits

KINDS = {
    "a.png": {"exif": exif(6), "icc_profile": ICC, "dpi": (72, 72)},
    "b.jpg": {"exif": exif(6), "icc_profile": ICC, "xmp": XMP},
    "c.webp": {"exif": exif(3), "xmp": XMP, "lossless": True},
    "d.tif": {"exif": exif(1), "icc_profile": ICC},
    "e.gif": {},
    "f.bmp": {},
    "g.avif": {"exif": exif(6)},
}


@cache
def whole(name):
    file = io.BytesIO()
    pixels("RGB").save(file, format=Image.registered_extensions()[f".{name.split('.')[1]}"], **KINDS[name])
    return file.getvalue()


def outcome(path):
    """What the reader says of a file; empty if it was read, altered and written again."""
    photo, said = None, ""
    try:
        photo = read_photo(path)
    except ReadError as error:
        said = str(error)
    if photo is None:
        assert said.startswith(f"{path}: expected ")
        assert "\n" not in said
        return said
    height, width = photo.picture.shape[1:]
    part = torch.full((3, min(3, height), min(3, width)), 0.3)
    target = path.with_name(f"written{photo.suffix}")
    photo.blended(part, part[:1], 0, 0).write(target, {"Seed": "3"})
    with Image.open(target) as after:
        after.load()
        assert (after.height, after.width) == (height, width)
    return ""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("malformed")


@given(
    name=st.sampled_from(sorted(KINDS)),
    length=st.floats(0.02, 1.5),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    early=st.booleans(),
)
@example(name="d.tif", length=1.5, changes=[], early=False)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_cut_off_or_altered_anywhere(place, name, length, changes, early):
    content = bytearray(whole(name))
    for at, value in changes:
        content[int(at * (min(len(content), 400) - 1 if early else len(content) - 1))] = value
    path = place / name
    path.write_bytes(bytes(content[: int(length * len(content))]))
    outcome(path)


def test_the_whole_ones_are_read(place):
    assert [outcome(_written(place / name, whole(name))) for name in KINDS] == [""] * len(KINDS)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks, width=4, height=4, depth=8, colour=2):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


PIXELS = chunk(b"IDAT", zlib.compress((b"\0" + b"\x50\x60\x70" * 4) * 4))
REFUSED = {
    "empty.jpg": b"",
    "one byte.png": b"\x89",
    "signature only.png": b"\x89PNG\r\n\x1a\n",
    "start of a jpeg.jpg": b"\xff\xd8\xff\xe0",
    "start of a webp.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    "start of a tiff.tif": b"II*\0",
    "start of a gif.gif": b"GIF89a",
    "start of a bmp.bmp": b"BM",
    "start of an avif.avif": b"\0\0\0\x1cftypavif\0\0\0\0",
    "page of a full quota.jpg": b"<!DOCTYPE html><html><title>Quota exceeded</title></html>",
    "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "paper.jpg": b"%PDF-1.7\n",
    "archive.png": b"PK\x03\x04" + bytes(40),
    "zeros.png": bytes(5000),
    "no pixels.png": png(),
    "no width.png": png(PIXELS, width=0),
    "endless.png": png(PIXELS, width=60000, height=60000),
    "negative.png": png(PIXELS, width=2**32 - 1, height=1),
    "broken stream.png": png(chunk(b"IDAT", b"nonsense")),
    "wrong colours.png": png(PIXELS, colour=5),
    "wrong depth.png": png(PIXELS, depth=3),
    "bomb.png": png(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(80_000_000))), PIXELS),
    "loop.tif": b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\x01\0\0\0\x04\0\0\0\x08\0\0\0",
    "directory beyond the end.tif": b"II*\0\xff\xff\xff\x7f",
    "no canvas.gif": b"GIF89a\0\0\0\0\0\0\0;",
}
READ = {
    "text that is none.png": png(chunk(b"tEXt", b"\xff\xfe\0\xff"), PIXELS),
    "key too long.png": png(chunk(b"tEXt", b"k" * 200 + b"\0v"), PIXELS),
    "no xml.png": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<not xml \xff"), PIXELS),
    "no exif.png": png(chunk(b"eXIf", b"nonsense"), PIXELS),
    "exif of zeros.png": png(chunk(b"eXIf", b"II*\0" + bytes(60)), PIXELS),
    "no profile.png": png(chunk(b"iCCP", b"x\0\0" + zlib.compress(b"nonsense")), PIXELS),
    "no resolution.png": png(chunk(b"pHYs", struct.pack(">IIB", 0, 2**31, 1)), PIXELS),
    "sixteen bits.png": sixteen_bits(),
    "trailing bytes.jpg": b"",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused(tmp_path, name):
    assert outcome(_written(tmp_path / name, REFUSED[name]))


@pytest.mark.parametrize("name", READ)
def test_what_only_says_nonsense_of_itself_is_read(tmp_path, name):
    assert outcome(_written(tmp_path / name, READ[name] or whole("b.jpg") + b"?" * 99)) == ""


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_are_none_turn_nothing(tmp_path, orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    pixels("RGB").save(tmp_path / "a.png", exif=made)
    assert outcome(tmp_path / "a.png") == ""
    assert read_photo(tmp_path / "a.png").image.size == (24, 20)


def test_damaged_metadata_is_left_out_and_told(tmp_path):
    pixels("RGB").save(tmp_path / "a.jpg", xmp=b"<x:xmpmeta \xff\xfe", exif=exif(), quality=95)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.note == "its damaged xmp cannot be kept"
    photo.write(tmp_path / "b.png", {})
    with Image.open(tmp_path / "b.png") as after:
        assert after.getexif()[0x010F] == "Camera"
        assert np.array_equal(np.asarray(after), np.asarray(photo.image))


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "broken link.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    names = ("folder.png", "circle.png", "broken link.png", "absent.png", "pipe.png", "\0.png")
    assert all(outcome(tmp_path / name) for name in names)


def _written(path, content):
    path.write_bytes(content)
    return path
