"""``pulse restore``: pixels outside the faces, seams, what is kept of a photo, and which faces."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageCms
from safetensors.torch import load_file

from degradations.warp import Warp
from pulse_framework.cli.options import example_photo
from pulse_framework.faces import Square
from pulse_framework.faces.photo import read_photo
from pulse_framework.images import read_image
from tests.cli.photos import BOX, FAST, gradient, opened


def inside(shape, scale=1, box=BOX):
    """Where the face may have changed pixels: well within a square of three times the box."""
    mask = np.zeros(shape[:2], bool)
    cx, cy, side = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(box[2] - box[0], box[3] - box[1])
    top, left = max(0, int((cy - 1.5 * side) * scale)), max(0, int((cx - 1.5 * side) * scale))
    mask[top : int((cy + 1.5 * side) * scale), left : int((cx + 1.5 * side) * scale)] = True
    return mask


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P"])
def test_outside_the_faces_nothing_changes(pulse, boxes, tmp_path, mode):
    size = (160, 150)
    photo = gradient("RGB", size)
    if mode.endswith("A"):
        photo.putalpha(Image.fromarray(np.tile(np.linspace(255, 130, size[0]).astype(np.uint8), (size[1], 1))))
    photo = photo.convert(mode) if mode != "P" else photo.quantize(200)
    photo.save(tmp_path / "a.png")
    done = pulse("restore", tmp_path / "a.png", "-o", tmp_path / "out", "--boxes", boxes, *FAST)
    assert done.status == 0, done.err
    before, after = photo.convert("RGB") if mode == "P" else photo, opened(tmp_path / "out/a.png")
    assert after.mode == ("RGB" if mode == "P" else mode)
    old, new = np.asarray(before), np.asarray(after)
    mask = inside(old.shape)
    assert np.array_equal(old[~mask], new[~mask])
    assert not np.array_equal(old[mask], new[mask])
    if mode.endswith("A"):
        assert np.array_equal(old[..., -1], new[..., -1])


def test_exif_profile_and_orientation(pulse, boxes, tmp_path):
    photo, exif = gradient(), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save(tmp_path / "a.png", exif=exif, icc_profile=profile)
    assert pulse("restore", tmp_path / "a.png", "-o", tmp_path / "out", "--boxes", boxes, *FAST).status == 0
    after = opened(tmp_path / "out/a.png")
    assert after.size == (60, 64)  # upright
    assert after.getexif().get(0x010F) == "a camera"
    assert after.getexif().get(0x0112) in (None, 1)
    assert after.info["icc_profile"] == profile


def test_the_picture_says_what_it_is(pulse, boxes, records, tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))
    gradient().save(tmp_path / "a.png")
    done = pulse("restore", tmp_path / "a.png", "-o", tmp_path / "out", "--boxes", boxes, "--seed", 3, *FAST)
    assert done.err.count("cannot identify anyone") == 1
    for name in ("a.png", "a_face0.png"):
        text = opened(tmp_path / "out" / name).text
        assert (text["Generator"], text["Seed"]) == ("faces-stylegan2-64", "3")
        assert "cannot identify anyone" in text["Description"]
        assert json.loads(text["Settings"])["search"]["steps"] == 2
    for name, term in (("a.png", "compositeWithTrainedAlgorithmicMedia"), ("a_face0.png", "trainedAlgorithmicMedia")):
        assert f"digitalsourcetype/{term}<" in opened(tmp_path / "out" / name).text["XML:com.adobe.xmp"]
    (line,) = records(tmp_path / "out")
    assert (line["face"], line["box"], line["degradation"], line["output"]) == (0, BOX, "warp", "a_face0.png")
    assert line["photo"] == str(tmp_path / "a.png")
    assert line["psnr_db"] > 0


def test_the_search_that_was_chosen_is_told(pulse, boxes, tmp_path):
    gradient().save(tmp_path / "a.png")
    arguments = ["restore", tmp_path / "a.png", "-o", tmp_path / "out", "--boxes", boxes, *FAST]
    done = pulse(*arguments, "search=auto", "search.target_db=45")
    assert done.err.count("the search runs LBFGS for a target of 45 dB") == 1


def test_the_edge_of_a_face_is_no_seam(tmp_path):
    """Along a line across the edge, a flat face in a flat photo changes no faster than the feather lets it."""
    Image.new("RGB", (200, 200), (90, 90, 90)).save(tmp_path / "flat.png")
    photo = read_photo(tmp_path / "flat.png")
    out = photo.with_face(torch.full((3, 64, 64), 150 / 255), Square((100.0, 100.0), (50.0, 0.0)))
    line = np.asarray(out.image)[100, :, 0].astype(int)
    assert line[100] == 150
    assert (line[:50] == 90).all()
    feather = 0.15 * 100
    assert np.abs(np.diff(line)).max() <= 1.5 * 60 / feather + 1  # the steepest of a cubic step, and rounding


def test_scale_crops_and_before_after(pulse, boxes, tmp_path):
    gradient().save(tmp_path / "a.png")
    common = ["restore", tmp_path / "a.png", "--boxes", boxes, *FAST]
    assert pulse(*common, "-o", tmp_path / "large", "--scale", 3, "--before-after").status == 0
    assert opened(tmp_path / "large/a.png").size == (192, 180)
    assert (tmp_path / "large/a_before_after.png").exists()
    assert pulse(*common, "-o", tmp_path / "crops", "--only-crops").status == 0
    assert {path.name for path in (tmp_path / "crops").glob("[!.]*")} == {
        "a_face0.png",
        "a_face0.safetensors",
        "config.yaml",
        "grid.png",
        "results.jsonl",
    }


def test_which_faces(pulse, records, tmp_path):
    gradient("RGB", (200, 100)).save(tmp_path / "a.png")
    found = [{"box": [20, 20, 40, 40]}, {"box": [120, 30, 160, 70]}, {"box": [80, 80, 84, 84]}]
    (tmp_path / "boxes.json").write_text(json.dumps(found))
    common = ["restore", tmp_path / "a.png", "--boxes", tmp_path / "boxes.json", "--only-crops", *FAST]
    for name, options, expected in (
        ("all", [], [found[1], found[0]]),
        ("largest", ["--faces", "largest"], [found[1]]),
        ("second", ["--faces", "1"], [found[0]]),
        ("small", ["--min-size", 2, "--faces", "2"], [found[2]]),
    ):
        assert pulse(*common, "-o", tmp_path / name, *options).status == 0
        assert [line["box"] for line in records(tmp_path / name)] == [face["box"] for face in expected]


def test_the_error_is_that_of_the_pixels_that_the_face_covers(pulse, records, tmp_path):
    """A face turned by 45 degrees covers half of its window; elsewhere the measurement agrees by construction."""
    gradient("RGB", (100, 100)).save(tmp_path / "a.png")
    points = np.array([[-8, -6], [8, -6], [0, 0], [-6, 8], [6, 8]]) @ np.array([[1, 1], [-1, 1]]) / 2**0.5 + 50
    (tmp_path / "turned.json").write_text(json.dumps([{"landmarks": points.tolist()}]))
    command = ["restore", tmp_path / "a.png", "-o", tmp_path / "out", "--boxes", tmp_path / "turned.json", *FAST]
    assert pulse(*command).status == 0
    (line,) = records(tmp_path / "out")
    measured = load_file(tmp_path / "out/.faces/a/a.png_face0.safetensors")["measurement"]
    share = float((measured != 0).any(0).float().mean())
    assert 0.4 < share < 0.55
    node = yaml.safe_load((tmp_path / "out/.faces/a/a.png_face0.degradation.yaml").read_text())["degradation"]
    operator = Warp(node["corners"], node["height"], node["width"])
    error = float((operator(read_image(tmp_path / "out/a_face0.png")[None])[0] - measured).square().mean()) / share
    assert line["mse"] == pytest.approx(error, rel=0.02)
    assert line["psnr_db"] == pytest.approx(-10 * np.log10(line["mse"]))


def test_the_bundled_portrait_by_dlib(pulse, records, tmp_path):
    """Reduced so that the face is some twenty pixels, then restored at four times that."""
    photo = opened(example_photo("portrait.jpg"))
    photo.resize((128, 128), Image.Resampling.LANCZOS).save(tmp_path / "small.png")
    options = ["--backend", "dlib", "--scale", 4, "search.start.draws=4", "--steps", 20, "--device", "cpu"]
    assert pulse("restore", tmp_path / "small.png", "-o", tmp_path / "out", *options).status == 0
    (line,) = records(tmp_path / "out")
    left, top, right, bottom = line["box"]
    assert 40 < left < right < 70
    assert 15 < top < bottom < 47
    assert line["psnr_db"] > 14
