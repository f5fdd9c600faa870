"""Faces from files."""

import json

import numpy as np
import pytest
import torch

from pulse_framework.faces import FFHQ, detector
from pulse_framework.faces.given import GivenFaces

PHOTO = torch.zeros(3, 4, 4)
FIVE = [[10, 20.5], [30, 20], [20, 30], [12, 40], [28, 40]]


def test_json_by_path_by_name_and_for_all(tmp_path):
    path = tmp_path / "faces.json"
    box = {"box": [1, 2, 30, 40.5], "score": 0.5}
    path.write_text(json.dumps({"a/one.png": [box], "one.png": [{"landmarks": FIVE}, box], "none.jpg": []}))
    found = detector(str(path))
    assert found.name == "faces.json"
    (face,) = found(PHOTO, "a/one.png")
    assert face.box == (1, 2, 30, 40.5)
    assert (face.score, face.landmarks, face.found_by) == (0.5, None, "faces.json")
    first, second = found(PHOTO, "b/one.png")
    assert first.box == (10, 20, 30, 40)
    assert first.landmarks.tolist() == FIVE
    assert second.score == 0.5
    assert found(PHOTO, "none.jpg") == found(PHOTO, "two.png") == []
    path.write_text(json.dumps([box]))
    assert len(GivenFaces(path)(PHOTO, "anything.webp")) == 1


def test_csv(tmp_path):
    path = tmp_path / "faces.CSV"
    many = np.arange(136).reshape(68, 2) / 2 + 1
    head = ["file", "left", "top", "right", "bottom", "score", *(f"{axis}{i}" for i in range(68) for axis in "xy")]
    lines = [
        ",".join(head),
        "one.png, 1, 2, 3, 4, 0.25" + "," * 136,
        "one.png,,,,,," + ",".join(f"{x},{y}" for x, y in many),
        "two.png,0,0,99,99,," + ",".join(f"{x},{y}" for x, y in FIVE) + "," * 126,
    ]
    path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    box, whole = GivenFaces(path)(PHOTO, "one.png")
    assert (box.box, box.score) == ((1, 2, 3, 4), 0.25)
    assert np.array_equal(whole.landmarks, many)
    (five,) = GivenFaces(path)(PHOTO, "x/two.png")
    assert (five.box, five.landmarks.tolist()) == ((0, 0, 99, 99), FIVE)
    assert FFHQ.square(five).side > 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("f.json", "{", "expected JSON, got"),
        ("f.json", '{"a.png": {"box": 1}}', "'a.png': expected a list of faces, got dict"),
        ("f.json", '[{"score": 1}]', r"'', face 0: expected a box or landmarks, got \{'score': 1\}"),
        ("f.json", "[3]", "face 0: expected a box or landmarks, got 3"),
        ("f.json", '[{"box": [1, 2, 3]}]', "expected numbers in pixels, got not enough values"),
        ("f.json", '[{"box": [1, 2, "wide", 4]}]', "expected numbers in pixels, got could not convert string to float: 'wide'"),
        ("f.json", '[{"box": [5, 2, 3, 4]}]', "expected left < right"),
        ("f.json", '[{"landmarks": [[1, 2], [3, 4]]}]', r"expected 68 or 5 finite points"),
        ("f.json", '[{"landmarks": 5}]', r"expected 68 or 5 finite points"),
        ("f.csv", "file,left,top,right\na.png,1,2,3", "line 2: expected a box or landmarks"),
        ("f.csv", "file,left,top,right,bottom\na.png,1,2,3,x", "line 2: expected numbers in pixels"),
    ],
)
def test_wrong_files(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        GivenFaces(tmp_path / name)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(ValueError, match="expected a readable JSON or CSV file"):
        GivenFaces(tmp_path / "no.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="expected a readable JSON or CSV file"):
        GivenFaces(tmp_path / "b.json")
    with pytest.raises(ValueError, match=r"faces backend: expected one of auto, face-alignment, blazeface, dlib, or a file"):
        detector(str(tmp_path / "nothing"))
