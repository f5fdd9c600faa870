"""What ``pulse upsample`` takes in, and what it refuses: one line with the cure, the other inputs still done."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_framework.cli.restore import prepare

KINDS = {
    "grey.png": lambda: Image.new("L", (4, 4), 90),
    "palette.png": lambda: Image.new("RGB", (4, 4), (10, 90, 200)).quantize(4),
    "alpha.png": lambda: Image.new("RGBA", (4, 4), (10, 90, 200, 128)),
    "deep.png": lambda: Image.fromarray(np.full((4, 4), 30000, np.uint16)),
    "bits.png": lambda: Image.new("1", (4, 4), 1),
    "photo.jpg": lambda: Image.new("RGB", (4, 4), (10, 90, 200)),
    "PHOTO.JPEG": lambda: Image.new("RGB", (4, 4), (10, 90, 200)),
    "web.webp": lambda: Image.new("RGB", (4, 4), (10, 90, 200)),
    "old.bmp": lambda: Image.new("RGB", (4, 4), (10, 90, 200)),
    "scan.tiff": lambda: Image.new("RGB", (4, 4), (10, 90, 200)),
    "scan.tif": lambda: Image.new("L", (4, 4), 10),
}


def png(width, height, data=b""):
    """A PNG whose header claims a size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def truncated():
    """A PNG with a sound header and half of its pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 4 * 3 + 1), np.uint8)
    noise[:, 0] = 0
    return png(4, 4, zlib.compress(noise.tobytes())[:20])


BAD = {
    "text.png": (lambda: b"this is no picture", "convert it"),
    "empty.png": (lambda: b"", "empty file"),
    "truncated.png": (truncated, "truncated"),
    "one.png": (lambda: png(1, 1, zlib.compress(bytes(4))), "at least 2 x 2"),
    "line.png": (lambda: png(4, 1, zlib.compress(bytes(13))), "at least 2 x 2"),
    "bomb.png": (lambda: png(60000, 60000), "shrink"),
    "large.png": (lambda: png(16, 16, zlib.compress(bytes(16 * 49))), "pulse degrade"),
    "wide.png": (lambda: png(8, 4, zlib.compress(bytes(4 * 25))), "crop or shrink"),
}


@pytest.fixture
def config(linear, tmp_path):
    from pulse_framework.cli.compose import load

    def make(*inputs):
        made = load(["generator=linear", *linear[2:]])
        made.output, made.data.inputs = str(tmp_path / "out"), [str(path) for path in inputs]
        return made

    return make


def test_every_kind_of_picture(pulse, records, linear, tmp_path):
    folder = tmp_path / "kinds"
    folder.mkdir()
    for name, make in KINDS.items():
        make().save(folder / name)
    turned = Image.new("RGB", (4, 4), (10, 90, 200))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    assert pulse("upsample", folder, "-o", tmp_path / "out", *linear).status == 0
    lines = records(tmp_path / "out")
    assert {Path(line["input"]).name for line in lines} == {*KINDS, "turned.jpg"}
    assert all(line["status"] != "error" for line in lines)
    with Image.open(tmp_path / "out" / "grey.png") as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")


def test_what_the_search_is_given_is_the_upright_picture(config, tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    job = prepare(config(tmp_path / "turned.png"))
    (batch,) = job.data.predict_dataloader()
    assert torch.equal(batch["measurements"][0], torch.from_numpy(np.rot90(pixels, -1).copy()).movedim(-1, 0) / 255)


@pytest.mark.parametrize(("side", "factor"), [(8, "2"), (4, "4"), (5, "16/5"), (3, "16/3"), (15, "16/15"), (2, "8")])
def test_the_factor_is_inferred(config, grey_square, tmp_path, side, factor):
    grey_square(side).save(tmp_path / "y.png")
    job = prepare(config(tmp_path / "y.png"))
    assert str(job.operators[side, side].factor) == factor


def test_an_explicit_factor(pulse, linear, grey_square, tmp_path):
    grey_square(5).save(tmp_path / "y.png")
    assert pulse("upsample", tmp_path / "y.png", "-o", tmp_path / "a", *linear, "--factor", "3").status == 0
    assert pulse("upsample", tmp_path / "y.png", "-o", tmp_path / "b", *linear, "--factor", "16/5").status == 0
    wrong = pulse("upsample", tmp_path / "y.png", "-o", tmp_path / "c", *linear, "--factor", "4")
    assert wrong.status == 2
    assert "leave the factor out" in wrong.err
    for nonsense in ("x", "0", "nan", "1/0", "4,5", "a'b"):
        done = pulse("upsample", tmp_path / "y.png", "-o", tmp_path / "d", *linear, "--factor", nonsense)
        assert (done.status, len(done.error_lines)) == (2, 1)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_reported_and_the_others_are_done(pulse, records, small, linear, tmp_path, name):
    make, cure = BAD[name]
    bad = tmp_path / name
    bad.write_bytes(make())
    done = pulse("upsample", bad, *small, "-o", tmp_path / "out", *linear, "--quiet")
    assert done.status == 1
    (line,) = done.error_lines
    assert str(bad) in line
    assert cure in line
    by_status = {line["input"]: line for line in records(tmp_path / "out")}
    assert by_status[str(bad)]["status"] == "error"
    assert cure in by_status[str(bad)]["error"]
    assert by_status[str(bad)]["output"] is None
    assert {by_status[str(path)]["status"] for path in small} <= {"converged", "best_effort"}
    alone = pulse("upsample", bad, "-o", tmp_path / "alone", *linear, "--quiet")
    assert (alone.status, len(alone.error_lines)) == (2, 1)
    # Once it is mended, the same command goes on.
    bad.write_bytes(small[0].read_bytes())
    again = pulse("upsample", bad, *small, "-o", tmp_path / "out", *linear)
    assert (again.status, "2 already done" in again.err) == (0, True)
    assert "error" not in {line["status"] for line in records(tmp_path / "out")}


def test_missing_path_empty_folder_and_no_input(pulse, small, linear, tmp_path):
    (tmp_path / "nothing").mkdir()
    for bad, cure in ((tmp_path / "missing.png", "check the path"), (tmp_path / "nothing", "got none")):
        some = pulse("upsample", bad, *small, "-o", tmp_path / "out", *linear, "--quiet", "--overwrite")
        assert (some.status, len(some.error_lines)) == (1, 1)
        assert str(bad) in some.err
        assert cure in some.err
        assert pulse("upsample", bad, "-o", tmp_path / "alone", *linear).status == 2
    none = pulse("upsample", "-o", tmp_path / "alone", *linear)
    assert (none.status, len(none.error_lines)) == (2, 1)


def test_permission_denied(pulse, small, linear, tmp_path, monkeypatch):
    real = Path.open

    def refuse(path, *arguments, **keywords):
        if path.name == small[0].name and "r" in (arguments[0] if arguments else "r"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", refuse)
    done = pulse("upsample", *small, "-o", tmp_path / "out", *linear, "--quiet")
    assert (done.status, len(done.error_lines)) == (1, 1)
    assert "change its permissions" in done.err


def test_an_output_that_cannot_be_a_folder(pulse, small, linear):
    done = pulse("upsample", small[0], "-o", small[1], *linear)
    assert (done.status, len(done.error_lines)) == (2, 1)
    assert "choose another" in done.err


WRONG = {
    "--generator nope": "digiface-dcgan-64",
    "--degradation nope": "bicubic",
    "--search nope": "adam",
    "--logger nope": "csv",
    "search.nope=1": "search.nope: expected one of prior",
    "nope.x=1": "nope: expected one of generator",
    "search.steps=[1": "override search.steps=[1",
    "search.steps=0": "at least 1",
    "search.steps=many": "search: expected",
    "--samples 0": "at least 1",
    "--batch-size 0": "at least 1",
    "--device cuda": "use device auto or cpu",
    "--device toaster": "auto, cpu, cuda, mps",
    "--precision 16-mixed": "use bf16-mixed or 32-true",
    "--precision 7": "32-true",
    "--config-dir /no/such/folder": "/no/such/folder",
    "generator.path=null": "generator",
    "generator.path=/no/such.safetensors": "/no/such.safetensors",
    "generator._target_=os.system": "--allow os",
    "prior._target_=pulse_framework.search.L2Consistency": "prior",
    "data.queue=0": "queue",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_end_with_2_before_any_work(pulse, small, linear, tmp_path, wrong):
    done = pulse("upsample", *small, "-o", tmp_path / "out", *linear, *wrong.split(" "))
    assert done.status == 2, done.err
    assert done.out == ""
    (line,) = done.error_lines
    assert WRONG[wrong] in line
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_a_missing_setting(pulse, small, tmp_path):
    done = pulse("upsample", *small, "-o", tmp_path / "out", "--generator", "linear")
    assert (done.status, done.err) == (2, "pulse: generator.path: expected a value, got none; give generator.path=VALUE\n")
