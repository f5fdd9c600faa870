"""``pulse restore``: pixels outside the faces, seams, what is kept of a photo, and what is refused."""

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
from tests.faces.test_malformed import REFUSED

FAST = ["search.start.draws=1", "--steps", 2, "--device", "cpu"]
BOX = [22, 20, 42, 42]


@pytest.fixture
def boxes(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"box": BOX}]))
    return path


def gradient(mode="RGB", size=(64, 60)):
    """A smooth picture with no two pixels alike."""
    x, y = np.meshgrid(np.linspace(40, 200, size[0]), np.linspace(30, 180, size[1]))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], -1).round().astype(np.uint8)).convert(mode)


def opened(path):
    """A picture, its file closed."""
    image = Image.open(path)
    image.load()
    return image


def files(folder, name="*"):
    """Bytes of the pictures and latents of a run, but for its overview."""
    made = (path for path in folder.rglob(name) if path.suffix in (".png", ".safetensors") and path.name != "grid.png")
    return {str(path.relative_to(folder)): path.read_bytes() for path in made}


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


def test_bad_photos_do_not_stop_the_rest(pulse, boxes, records, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    gradient().save(folder / "good.png")
    (folder / "torn.png").write_bytes((folder / "good.png").read_bytes()[:300])
    for name, content in REFUSED.items():
        (folder / name).write_bytes(content)
    done = pulse("restore", folder, "-o", tmp_path / "out", "--boxes", boxes, *FAST)
    assert done.status == 1
    for name in ("torn.png", *REFUSED):
        (line,) = (line for line in done.error_lines if f"/{name}: " in line)
        assert line.startswith("pulse: ")
        assert "expected" in line
    assert (tmp_path / "out/good.png").exists()
    errors = {line["input"] for line in records(tmp_path / "out") if line["status"] == "error"}
    assert errors == {str(folder / name) for name in ("torn.png", *REFUSED)}


def test_the_limit_of_pixels_is_that_of_what_is_read_and_written(pulse, boxes, tmp_path):
    gradient().save(tmp_path / "a.png")  # 60 x 64
    common = ["restore", tmp_path / "a.png", "--boxes", boxes, "-o", tmp_path / "out", *FAST]
    done = pulse(*common, "--max-pixels", 3839)
    assert (done.status, "at most 3,839 pixels, got 60 x 64 = 3,840" in done.err) == (2, True)
    done = pulse(*common, "--max-pixels", 10000, "--scale", 2)
    assert (done.status, "at most 10,000 pixels after --scale 2, got 15,360" in done.err) == (2, True)
    assert pulse(*common, "--max-pixels", 15360, "--scale", 2).status == 0


def test_a_folder_keeps_its_tree_and_its_formats(pulse, boxes, records, tmp_path):
    (tmp_path / "photos" / "sommer").mkdir(parents=True)
    gradient().save(tmp_path / "photos" / "sommer" / "größe.webp", lossless=True)
    gradient("CMYK").save(tmp_path / "photos" / "sommer" / "ink.jpg")
    gradient().save(tmp_path / "photos" / "größe.jpg")
    done = pulse("restore", tmp_path / "photos", "-o", tmp_path / "out", "--boxes", boxes, *FAST)
    assert done.status == 0, done.err
    names = {"größe.png", "sommer/größe.webp", "sommer/ink.tif"}
    assert all((tmp_path / "out" / name).exists() for name in names)
    assert opened(tmp_path / "out" / "sommer" / "ink.tif").mode == "CMYK"
    assert {line["output"] for line in records(tmp_path / "out")} == {f"{name.split('.')[0]}_face0.png" for name in names}
    assert all((tmp_path / "out" / line["output"]).exists() for line in records(tmp_path / "out"))


def test_photos_without_faces(pulse, tmp_path):
    photo = gradient()
    photo.save(tmp_path / "a.png")
    (tmp_path / "none.json").write_text("[]")
    common = ["restore", tmp_path / "a.png", "--boxes", tmp_path / "none.json", *FAST]
    done = pulse(*common, "-o", tmp_path / "out")
    assert done.status == 2
    assert "no face of 8 pixels or more was found" in done.err
    assert not (tmp_path / "out/a.png").exists()
    assert "it is copied" in pulse(*common, "-o", tmp_path / "out", "--copy-without-faces").err
    assert (tmp_path / "out/a.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    (tmp_path / "photos" / "in").mkdir(parents=True)
    photo.save(tmp_path / "photos/in/b.jpg")
    common[1] = tmp_path / "photos"
    for _ in range(2):  # the second finds it done
        assert "it is copied" in pulse(*common, "-o", tmp_path / "more", "--copy-without-faces").err
        assert (tmp_path / "more/in/b.jpg").read_bytes() == (tmp_path / "photos/in/b.jpg").read_bytes()
    pulse(*common, "-o", tmp_path / "large", "--copy-without-faces", "--scale", 2)
    assert opened(tmp_path / "large/in/b.png").size == (128, 120)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--faces", "some"], "expected all, largest or a number"),
        (["--generator", "linear", "generator.path=x"], "whose card names its framing"),
        (["--boxes", "missing.json"], "missing.json"),
    ],
)
def test_wrong_settings_end_with_2(pulse, tmp_path, options, message):
    gradient().save(tmp_path / "a.png")
    done = pulse("restore", tmp_path / "a.png", "-o", tmp_path / "out", *options)
    assert done.status == 2
    assert message in done.err
    assert len(done.error_lines) == 1


def test_nothing_is_overwritten_unasked(pulse, boxes, tmp_path):
    gradient().save(tmp_path / "a.png")
    common = ["restore", tmp_path / "a.png", "--boxes", boxes, *FAST]
    assert pulse(*common, "-o", tmp_path).status == 2
    assert pulse(*common, "-o", tmp_path / "out").status == 0
    before = files(tmp_path / "out")
    for other in (["--seed", 1], ["--scale", 2], ["--samples", 2]):
        done = pulse(*common, "-o", tmp_path / "out", *other)
        assert done.status == 2, other
        assert "--overwrite" in done.err
        assert files(tmp_path / "out") == before
    assert pulse(*common, "-o", tmp_path / "out", "--seed", 1, "--overwrite").status == 0
    assert files(tmp_path / "out") != before


def test_a_photo_is_decoded_once(pulse, tmp_path, monkeypatch):
    """However many faces and answers it has."""
    gradient("RGB", (200, 100)).save(tmp_path / "a.png")
    (tmp_path / "two.json").write_text(json.dumps([{"box": [20, 20, 40, 40]}, {"box": [120, 30, 160, 70]}]))
    read = []
    monkeypatch.setattr("pulse_framework.cli.found.read_photo", lambda *given: (read.append(given[0]), read_photo(*given))[1])
    command = ["restore", tmp_path / "a.png", "-o", tmp_path / "out", "--boxes", tmp_path / "two.json", "--samples", 2, *FAST]
    assert pulse(*command).status == 0
    assert read == [tmp_path / "a.png"]


def test_samples_are_as_many_pictures(pulse, boxes, records, tmp_path):
    gradient().save(tmp_path / "a.png")
    done = pulse("restore", tmp_path / "a.png", "-o", tmp_path / "out", "--boxes", boxes, "--samples", 2, "--strict", *FAST)
    assert done.status == 1  # two steps do not converge
    made = files(tmp_path / "out", "a_*.png")
    assert {"a_0.png", "a_1.png", "a_face0_0.png", "a_face0_1.png"} <= set(made)
    assert made["a_0.png"] != made["a_1.png"]
    assert [line["sample"] for line in records(tmp_path / "out")] == [0, 1]


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
