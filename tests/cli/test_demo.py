"""``pulse demo``: what it shows is what was restored, with dlib and without."""

import json

import numpy as np
import torch
from PIL import Image

from pulse_framework.cli import demo
from pulse_framework.cli.options import example_photo
from pulse_framework.faces import Square, place
from pulse_framework.faces.photo import read_photo
from pulse_framework.images import read_image
from tests.faces.seam import seam


def test_demo(pulse_process, records, tmp_path):
    done = pulse_process("demo", "-o", "demo out", cwd=tmp_path)
    out = tmp_path / "demo out"
    assert done.status == 0, done.err
    names = [f"portrait_face0_{k}.png" for k in range(3)] + [f"portrait_{k}.png" for k in range(3)]
    assert sorted(done.out.splitlines()) == sorted(f"demo out/{name}" for name in names)
    assert [line["status"] for line in records(out)] == ["converged"] * 3
    assert min(line["psnr_db"] for line in records(out)) > 24.5
    assert all(line.startswith("pulse: ") for line in done.error_lines)
    sheet, photos = read_image(out / "demo.png"), [read_image(out / f"portrait_{k}.png") for k in range(3)]
    assert sheet.shape == (3, 2 * 256 + 4, 4 * 256 + 3 * 4)
    for k, photo in enumerate(photos, 1):
        assert torch.equal(sheet[:, :256, 260 * k : 260 * k + 256], photo)
    assert torch.equal(sheet[:, :256:8, :256:8], read_image(out / "input" / "portrait.png"))
    near, far = photos[0][:, 40:80, 90:130], photos[0][:, 120:]
    assert float((near - photos[1][:, 40:80, 90:130]).abs().mean()) > 0.02
    assert torch.equal(far, photos[1][:, 120:])
    check_no_seam(out, photos)
    with Image.open(out / "demo.png") as image:
        assert "compositeWithTrainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]


def check_no_seam(out, photos):
    """Across the edge of a face its picture is as steep as beside the edge, to 5 %; not so if the edge is not feathered."""
    (found,) = json.loads((out / ".faces" / "portrait" / "faces.json").read_text())["found"]
    square = Square(tuple(found["square"]["centre"]), tuple(found["square"]["axis"])).scaled(8)
    large = read_photo(out / "input" / "portrait.png").enlarged(8)
    top, left, bottom, right = square.window(256, 256, margin=2)
    for k, photo in enumerate(photos):
        assert abs(seam(photo, square)) < 0.05
        face = read_image(out / f"portrait_face0_{k}.png")
        placed, covered = place(face, square.moved(-left, -top), bottom - top, right - left)
        cut = large.blended(placed, (covered > 0.5).float(), top, left)
        assert seam(cut.picture, square) > 0.3


def test_without_dlib_the_bundled_file_says_what_it_would_find(monkeypatch):
    photo = example_photo("portrait.jpg")
    (found,) = demo._finder()(read_image(photo), str(photo))
    monkeypatch.setattr(demo, "dlib_missing", lambda: "dlib is not installed")
    (given,) = demo._finder()(read_image(photo), str(photo))
    assert (found.found_by, given.found_by) == ("dlib", "portrait.faces.json")
    assert given.box == found.box
    assert np.allclose(given.landmarks, found.landmarks, atol=0.006)
