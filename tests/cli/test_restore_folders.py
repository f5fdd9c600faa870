"""``pulse restore`` of many photos: bad ones, limits, trees, photos without faces, and what is refused."""

import json

import pytest

from pulse_framework.faces.photo import read_photo
from tests.cli.photos import FAST, files, gradient, opened
from tests.faces.test_malformed import REFUSED


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
