"""The pictures and figures of docs/faces.md are what its script makes of the portrait."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_framework.faces import Face, detector

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(DOCS / "faces.py"))


def test_pictures_show_what_the_page_says(script):
    pictures = script["pictures"]()
    assert {f"{name}.png" for name in pictures} == {path.name for path in DOCS.glob("faces-*.png")}
    for name, picture in pictures.items():
        assert f"({name}.png)" in (DOCS / "faces.md").read_text()
        assert np.asarray(picture).std() > 30
    cell, gap = script["CELL"], script["GAP"]
    photo, seen, mask, difference = (
        np.asarray(pictures["faces-warp"]).astype(float)[:cell, i * (cell + gap) : i * (cell + gap) + cell] for i in range(4)
    )
    inside = mask > 128
    assert 0.8 < inside.mean() < 0.98
    assert np.abs(photo - seen)[inside].mean() < 1
    assert np.abs(difference[inside] - (20 * np.abs(photo - seen)[inside]).clip(max=255)).mean() < 10


def test_how_far_landmarks_lie_apart_is_measured_in_distances_of_the_eyes(script):
    photo, face = script["found"]()
    (given,) = detector(str(DOCS.parent / "examples" / "portrait.faces.json"))(photo, "portrait.jpg")
    assert script["apart"](face, given) < 2e-4
    eyes = np.linalg.norm(face.five[1] - face.five[0])
    moved = Face(face.box, face.landmarks + np.array([0.03 * eyes, 0]))
    assert script["apart"](face, moved) == pytest.approx(0.03)


def test_the_restored_photos_are_those_of_the_script(script):
    """Restoring them takes minutes: here only that the page and its picture have the sizes of the script."""
    page, sides = (DOCS / "faces.md").read_text(), script["RESTORED"]
    table = page.partition("<!-- sizes -->\n")[2].partition("\n<!-- end -->")[0].splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == [f"{side} x {side}" for side in sides]
    with Image.open(DOCS / "restored-sizes.png") as picture:
        cells, high = len(sides), 2 * (script["CELL"] + script["CAPTION"]) + script["GAP"]
        assert picture.size == (cells * (script["CELL"] + script["GAP"]) - script["GAP"], high)


def test_the_face_comes_back_to_within_a_level(script):
    table = script["there_and_back"]()
    assert table in (DOCS / "faces.md").read_text(), "run `python docs/faces.py` and commit what it writes"
    levels = {int(line.split("|")[1]): float(line.split("|")[2]) for line in table.splitlines()[2:]}
    assert levels[64] > 2
    assert levels[256] < 1
