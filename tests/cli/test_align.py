"""``pulse align``, and the word on inputs that lie otherwise than the generator's images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pulse_framework.cli.compose import load
from pulse_framework.cli.framing import framing_of, unaligned
from pulse_framework.faces import FFHQ, Framing, Square, crop
from pulse_framework.faces.dlib_landmarks import DlibDetector
from pulse_framework.images import read_image, write_png
from pulse_framework.runtime import take_in

ROOT = Path(__file__).parents[2]
PORTRAIT = ROOT / "examples" / "portrait.jpg"
CARD = "{_target_: pulse_framework.weights.fetch, card: 'pkg://generators/cards/%s.yaml'}"


@pytest.fixture(scope="module")
def face():
    return DlibDetector()(read_image(PORTRAIT))[0]


def sidecar(folder, name="portrait"):
    return json.loads((folder / f"{name}.faces.json").read_text())


def test_the_generators_crop(pulse, tmp_path, face):
    done = pulse("align", PORTRAIT, "-o", tmp_path, "--backend", "dlib")
    assert (done.status, done.out.split()) == (0, [str(tmp_path / "portrait_0.png")])
    assert done.error_lines == ["pulse: faces are found by dlib", f"pulse: 1 written, 0 photos without; in {tmp_path}"]
    square = Framing(scale=0.8).square(face)
    expected = crop(read_image(PORTRAIT), square, 64).clamp(0, 1)
    assert float((read_image(tmp_path / "portrait_0.png") - expected).abs().max()) <= 0.5 / 255 + 1e-6
    record = sidecar(tmp_path)
    assert (record["photo"], record["height"], record["alignment"]) == ("portrait.jpg", 512, "faces-stylegan2-64")
    (entry,) = record["faces"]
    assert entry["crop"] == "portrait_0.png"
    assert np.allclose(entry["landmarks"], face.landmarks, atol=1e-3)
    assert tuple(entry["box"]) == face.box
    assert entry["score"] == face.score
    assert Square(tuple(entry["square"]["centre"]), tuple(entry["square"]["axis"])) == square
    assert np.allclose(entry["matrix"], square.matrix(64))


def test_ffhq_and_then_the_boxes_of_the_sidecar(pulse, tmp_path, face):
    """The sidecar is a file of landmarks, by which another crop can be made without any detector."""
    assert pulse("align", PORTRAIT, "-o", tmp_path, "--backend", "dlib", "--alignment", "ffhq", "--size", 96).status == 0
    expected = crop(read_image(PORTRAIT), FFHQ.square(face), 96).clamp(0, 1)
    assert float((read_image(tmp_path / "portrait_0.png") - expected).abs().max()) <= 0.5 / 255 + 1e-6
    own = ["--alignment", "none", "--backend", tmp_path / "portrait.faces.json", "--quiet"]
    done = pulse("align", PORTRAIT, "-o", tmp_path / "own", *own)
    assert (done.status, done.err) == (0, "")
    left, top, right, bottom = map(int, face.box)
    assert torch.equal(read_image(tmp_path / "own" / "portrait_0.png"), read_image(PORTRAIT)[:, top:bottom, left:right])


def test_several_faces_largest_first(pulse, tmp_path):
    boxes = {"portrait.jpg": [{"box": [10, 10, 40, 45]}, {"box": [175, 80, 265, 170]}]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    done = pulse("align", PORTRAIT, "-o", tmp_path / "out", "--backend", tmp_path / "boxes.json", "--size", 32)
    assert [Path(line).name for line in done.out.split()] == ["portrait_0.png", "portrait_1.png"]
    assert [entry["box"][0] for entry in sidecar(tmp_path / "out")["faces"]] == [175, 10]
    assert [entry["landmarks"] for entry in sidecar(tmp_path / "out")["faces"]] == [None, None]


def test_cats_get_the_middle_of_the_photo(pulse, tmp_path):
    """And no detector is asked."""
    write_png(torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0)), tmp_path / "cat.png")
    cats = ["--generator", "stylegan2", f"generator.path={CARD % 'stylegan2-afhqcat-512'}", "--size", 40, "--backend", "nobody"]
    done = pulse("align", tmp_path / "cat.png", "-o", tmp_path / "out", *cats)
    assert done.status == 0
    assert torch.equal(read_image(tmp_path / "out" / "cat_0.png"), read_image(tmp_path / "cat.png")[:, :, 10:50])
    (entry,) = sidecar(tmp_path / "out", "cat")["faces"]
    assert entry["square"] == {"centre": [30, 20], "axis": [20, 0]}


def test_photos_without_a_face_and_files_that_are_none(pulse, tmp_path):
    write_png(torch.full((3, 50, 50), 0.5), tmp_path / "wall.png")
    (tmp_path / "text.png").write_text("no picture")
    inputs = [tmp_path / "wall.png", tmp_path / "text.png"]
    done = pulse("align", *inputs, PORTRAIT, "-o", tmp_path / "out", "--backend", "dlib")
    assert done.status == 1
    assert f"pulse: {inputs[0]}: no face was found; try another --backend, or give boxes in a file" in done.error_lines
    assert any(line.startswith(f"pulse: {inputs[1]}: expected an image") for line in done.error_lines)
    assert len(done.out.split()) == 1
    assert not (tmp_path / "out" / "wall.faces.json").exists()
    assert pulse("align", *inputs, "-o", tmp_path / "none", "--backend", "dlib").status == 2
    assert not (tmp_path / "none").exists()


def test_nothing_is_overwritten_unless_told(pulse, tmp_path):
    (tmp_path / "boxes.json").write_text('[{"box": [175, 80, 265, 170]}]')
    command = ["align", PORTRAIT, "-o", tmp_path / "out", "--backend", tmp_path / "boxes.json", "--size", 8]
    assert pulse(*command).status == 0
    again = pulse(*command)
    assert again.status == 2
    assert "expected no portrait.faces.json, got one; choose another folder or add --overwrite" in again.err
    assert pulse(*command, "--overwrite").status == 0
    (tmp_path / "out" / "portrait.faces.json").unlink()
    assert "expected no portrait_0.png, got one" in pulse(*command).err
    photo = write_png(torch.rand(3, 9, 9), tmp_path / "a_0.png")
    other = write_png(torch.rand(3, 9, 9), tmp_path / "a.png")
    refused = pulse("align", photo, other, "-o", tmp_path, "--backend", tmp_path / "boxes.json")
    assert refused.status == 2
    assert "expected a folder that is not the input's" in refused.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--alignment", "celeba"], "--alignment: expected one of generator, ffhq, none, got 'celeba'"),
        (["--generator", "linear", "generator.path=x"], "a generator whose card names its framing, got linear"),
        (["--backend", "nobody"], "faces backend: expected one of auto, face-alignment, blazeface, dlib, or a file of boxes"),
    ],
)
def test_wrong_options(pulse, tmp_path, options, said):
    done = pulse("align", PORTRAIT, "-o", tmp_path, *options)
    assert done.status == 2
    assert said in done.err


def test_framings_of_cards():
    assert framing_of(load([])) == Framing(scale=0.8)
    assert framing_of(load(["generator=stylegan2", f"generator.path={CARD % 'stylegan2-ffhq-1024'}"])) == FFHQ
    assert framing_of(load(["generator=stylegan2", f"generator.path={CARD % 'stylegan2-afhqdog-512'}"])) == Framing(by="centre")
    assert framing_of(load(["generator=linear"])) is None


def noted(tmp_path, **pictures):
    paths = [write_png(picture, tmp_path / f"{name}.png") for name, picture in pictures.items()]
    return {Path(note.split(": ")[0]).stem: note for note in unaligned(load([]), take_in(paths)[0])}


def test_inputs_that_lie_otherwise_are_named(tmp_path, face):
    photo, square = read_image(PORTRAIT), Framing(scale=0.8).square(face)
    turned = Square(square.centre, (square.side / 2 * 0.8, square.side / 2 * -0.6))
    notes = noted(
        tmp_path,
        right=crop(photo, square, 64),
        small=crop(photo, square, 32),
        whole=torch.nn.functional.interpolate(photo[None], (256, 256), mode="area")[0],
        beside=crop(photo, square.moved(25, 0), 64),
        turned=crop(photo, turned, 128),
        wall=torch.full((3, 64, 64), 0.5),
        tiny=crop(photo, square.moved(25, 0), 16),
    )
    assert set(notes) == {"whole", "beside", "turned"}
    assert "times as large" in notes["whole"]
    assert "off the middle" in notes["beside"]
    assert "turned by 3" in notes["turned"] or "turned by 4" in notes["turned"]
    assert all("cut it out anew by `pulse align`" in note for note in notes.values())


def test_nothing_is_said_without_dlib(tmp_path, monkeypatch):
    monkeypatch.setattr("pulse_framework.cli.framing.dlib_missing", lambda: "gone")
    assert noted(tmp_path, whole=read_image(PORTRAIT)) == {}
