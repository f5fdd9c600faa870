"""Photos: what is not altered stays what it is, in every format and mode, and metadata too."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from pulse_framework.faces.photo import read_photo
from pulse_framework.formats import formats
from pulse_framework.images import read_image
from pulse_framework.provenance import COMPOSITE

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:source>own</dc:source></rdf:Description>'
    b"</rdf:RDF></x:xmpmeta>"
)
MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 1}


def pixels(mode, height=20, width=24):
    kind = np.uint16 if mode == "I;16" else np.uint8
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (height, width, MODES[mode]), dtype=kind)
    return Image.fromarray(values[..., 0] if MODES[mode] == 1 else values, "CMYK" if mode == "CMYK" else None)


def sixteen_bits():
    """A PNG of 16 bits a channel, all of whose pixels are 0x1234, 0x5678, 0x9ABC; Pillow writes none."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + bytes.fromhex("123456789abc") * 8) * 8
    parts = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif(orientation=1):
    """With directories inside: when and how long, and where."""
    made = Image.Exif()
    made[0x010F], made[0x0112] = "Camera", orientation
    made[0x8769] = {0x9003: "2020:06:01 12:00:00", 0x829A: (1, 100)}
    made[0x8825] = {1: "N", 2: (51.0, 30.0, 12.0)}
    loaded = Image.Exif()
    loaded.load(made.tobytes())
    return loaded


def check_exif(image):
    """All but the orientation is there."""
    found = image.getexif()
    assert found[0x010F] == "Camera"
    assert found.get_ifd(0x8769)[0x9003] == "2020:06:01 12:00:00"
    assert found.get_ifd(0x8825) == {1: "N", 2: (51.0, 30.0, 12.0)}


def altered(path, to):
    """With a red square in rows 4 to 11 and columns 6 to 15."""
    photo = read_photo(path)
    mask = torch.ones(1, 8, 10)
    mask[:, 0] = 0
    changed = photo.blended(torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 8, 10), mask, 4, 6)
    target = to.with_suffix(photo.suffix)
    changed.write(target, {"Seed": "3"})
    return target


def check_outside(before, after):
    before, after = np.asarray(before).copy(), np.asarray(after).copy()
    assert before.shape == after.shape
    assert before.dtype == after.dtype
    assert not np.array_equal(before[5:12, 6:16], after[5:12, 6:16])
    before[5:12, 6:16] = after[5:12, 6:16] = 0
    assert np.array_equal(before, after)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        (m, s)
        for m in MODES
        for s in (".png", ".tif", ".webp")
        if not (m == "CMYK" and s == ".png") and (s != ".webp" or "RGB" in m)
    ],
)
def test_lossless_formats_keep_pixels_and_metadata(tmp_path, mode, suffix):
    path = tmp_path / f"ünï 写真{suffix}"
    saving = {"exif": exif(), "icc_profile": ICC}
    if suffix == ".png":
        info = PngInfo()
        info.add_text("Title", "mine")
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        saving["pnginfo"] = info
    elif suffix == ".tif":
        saving["exif"][700] = XMP
    else:
        saving |= {"xmp": XMP, "lossless": True, "exact": True}
    pixels(mode).save(path, **saving)
    with Image.open(path) as before, Image.open(altered(path, tmp_path / "out")) as after:
        assert before.mode == after.mode
        check_outside(before, after)
        if mode.endswith("A"):
            assert np.array_equal(np.asarray(before)[..., -1], np.asarray(after)[..., -1])
        assert after.info["icc_profile"] == ICC
        check_exif(after)
        packet = after.info.get("xmp") or after.info["XML:com.adobe.xmp"]
        packet = packet if isinstance(packet, str) else packet.decode()
        assert COMPOSITE in packet
        assert "<dc:source>own</dc:source>" in packet
        if suffix == ".png":
            assert after.text["Title"] == "mine"
            assert after.text["Seed"] == "3"


@pytest.mark.parametrize(("mode", "suffix"), [("L", ".png"), ("RGB", ".png"), ("CMYK", ".tif")])
def test_jpegs_are_written_without_further_loss(tmp_path, mode, suffix):
    path = tmp_path / "a.jpeg"
    pixels(mode).save(path, exif=exif(), icc_profile=ICC, xmp=XMP, quality=90, subsampling=0)
    target = altered(path, tmp_path / "out")
    assert target.suffix == suffix
    with Image.open(path) as before, Image.open(target) as after:
        assert after.mode == mode
        check_outside(before, after)
        assert after.info["icc_profile"] == ICC
        check_exif(after)
        packet = after.info.get("xmp") or after.info["XML:com.adobe.xmp"].encode()
        assert COMPOSITE.encode() in packet
        assert b"<dc:source>own</dc:source>" in packet


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_avif_and_heic_become_png(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    formats()
    pixels("RGB", 64, 64).save(path, exif=exif(), icc_profile=ICC, xmp=XMP)
    target = altered(path, tmp_path / "out")
    with Image.open(path) as before, Image.open(target) as after:
        assert after.format == "PNG"
        check_outside(before, after)
        check_exif(after)
        assert after.info["icc_profile"] == ICC
        assert "<dc:source>own</dc:source>" in after.info["XML:com.adobe.xmp"]


@pytest.mark.parametrize(
    ("made", "name", "mode"),
    [
        (pixels("RGB"), "a.bmp", "RGB"),
        (pixels("RGB").convert("1"), "a.png", "L"),
        (pixels("RGB").convert("1"), "a.tif", "L"),
        (pixels("RGB").quantize(200), "a.png", "RGB"),
        (pixels("RGB").convert("YCbCr"), "a.tif", "RGB"),
        (pixels("RGB").convert("LAB").convert("RGB"), "a.jfif", "RGB"),
    ],
    ids=["bmp", "two colours", "fax", "palette", "YCbCr", "jfif"],
)
def test_other_modes_become_the_next_that_loses_nothing(tmp_path, made, name, mode):
    path = tmp_path / name
    made.save(path, **({"format": "JPEG"} if name.endswith("jfif") else {}))
    with Image.open(path) as before, Image.open(altered(path, tmp_path / "b")) as after:
        assert after.mode == mode
        check_outside(before.convert(mode), after)


def test_transparent_palettes_keep_what_is_transparent(tmp_path):
    path = tmp_path / "a.png"
    pixels("RGB").quantize(20).save(path, transparency=3)
    with Image.open(path) as before, Image.open(altered(path, tmp_path / "b")) as after:
        assert after.mode == "RGBA"
        check_outside(before.convert("RGBA"), after)
        assert set(np.unique(np.asarray(after)[..., 3])) == {0, 255}


def test_sixteen_bits_of_the_other_byte_order(tmp_path):
    values = np.asarray(pixels("I;16"))
    Image.frombytes("I;16B", (24, 20), values.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    with Image.open(altered(tmp_path / "a.tif", tmp_path / "b")) as after:
        check_outside(values, after)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright_once(tmp_path, orientation):
    path = tmp_path / "a.png"
    pixels("RGB").save(path, exif=exif(orientation))
    photo = read_photo(path)
    assert torch.equal(photo.picture, read_image(path))
    photo.write(tmp_path / "b.png", {})
    assert torch.equal(read_image(tmp_path / "b.png"), read_image(path))
    with Image.open(tmp_path / "b.png") as after:
        assert 0x0112 not in after.getexif()
        check_exif(after)


def test_palettes_animations_and_deep_colour_are_told(tmp_path):
    frames = [pixels("RGB").quantize(16), pixels("L").quantize(16)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    photo = read_photo(tmp_path / "a.gif")
    assert photo.note == "only the first of 2 frames is kept"
    assert (photo.format, photo.suffix, photo.image.mode) == ("PNG", ".png", "RGB")
    with Image.open(tmp_path / "a.gif") as before, Image.open(altered(tmp_path / "a.gif", tmp_path / "b")) as after:
        check_outside(before.convert("RGB"), after)
    file = io.BytesIO()
    pixels("I;16").save(file, format="PNG")
    assert read_photo(_written(tmp_path / "grey.png", file.getvalue())).note == ""
    photo = read_photo(_written(tmp_path / "deep.png", sixteen_bits()))
    assert photo.note == "its 16 bits a channel are kept in 8"
    assert np.asarray(photo.image)[3, 5].tolist() == [0x12, 0x56, 0x9A]


def _written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mode", MODES)
def test_enlarged_photos_keep_their_mode_and_their_mean(tmp_path, mode):
    path = tmp_path / "a.tif"
    pixels(mode).save(path)
    photo = read_photo(path)
    large = photo.enlarged(2)
    assert (large.image.size, large.image.mode) == ((48, 40), photo.image.mode)
    small, great = np.asarray(photo.image).astype(float), np.asarray(large.image).astype(float)
    opaque = small[..., :3] if mode == "RGB" else None
    if opaque is not None:
        assert abs(opaque.mean() - great.mean()) < 2
    assert photo.enlarged(1) is photo


@pytest.mark.parametrize("mode", MODES)
def test_an_overview_is_no_larger_than_asked_for(tmp_path, mode):
    path = tmp_path / "a.tif"
    pixels(mode).resize((24, 20)).save(path)
    photo = read_photo(path)
    assert photo.overview(12).shape == (3, 10, 12)
    assert float(photo.overview(12).mean()) == pytest.approx(float(photo.picture.mean()), abs=0.03)
    assert torch.equal(photo.overview(24), photo.picture)


def test_grey_gets_the_luminance_and_cmyk_its_inks(tmp_path):
    for mode, expected in (("L", [76]), ("I;16", [round(0.299 * 65535)]), ("CMYK", [0, 255, 255, 0])):
        path = tmp_path / "a.tif"
        pixels(mode).save(path)
        with Image.open(altered(path, tmp_path / "b")) as after:
            assert np.atleast_1d(np.asarray(after)[8, 8]).tolist() == expected
