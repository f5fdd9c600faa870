"""dlib's detector and landmarks, with the real model."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pulse_framework.faces import FFHQ, crop
from pulse_framework.faces.dlib_landmarks import DlibDetector, dlib_missing
from pulse_framework.images import read_image

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"
EYES_AND_MOUTH = np.array([[204.5, 102.5], [247.5, 104.5], [201.5, 139.5], [246.5, 141.5]])
"""Where they are seen to be in the portrait."""
LEFT, SIDE = 96, 256
"""The part of it that most of these tests look at: it is quicker."""
DISTANCE = 43.0


@pytest.fixture(scope="module")
def photo():
    return read_image(PORTRAIT)[:, :SIDE, LEFT : LEFT + SIDE].contiguous()


def test_the_portrait_has_one_face_where_it_is():
    (face,) = DlibDetector()(read_image(PORTRAIT))
    assert np.abs(face.five[[0, 1, 3, 4]] - EYES_AND_MOUTH).max() < 2
    assert face.landmarks.shape == (68, 2)
    assert face.box[0] < 180
    assert face.box[2] > 260
    assert 80 < face.size < 110
    assert face.score > 1
    assert face.found_by == "dlib"
    assert "face_recognition_models" not in sys.modules


@pytest.mark.parametrize(("left", "top"), [(7, 0), (0, 12), (20, 31)])
def test_landmarks_move_with_the_photo(photo, left, top):
    """By whole pixels, to a few percent of the distance of the eyes."""
    (face,), (moved,) = DlibDetector()(photo), DlibDetector()(photo[:, top:, left:].contiguous())
    assert np.abs(moved.landmarks + np.array([left, top]) - face.landmarks).mean() < 0.03 * DISTANCE


def test_a_mirrored_photo_has_mirrored_landmarks(photo):
    """No half pixel is lost: the middle of pixel i is i + 1/2 on both sides."""
    (face,), (other,) = DlibDetector()(photo), DlibDetector()(photo.flip(-1))
    mirrored = other.five[[1, 0, 2, 4, 3]] * [-1, 1] + [photo.shape[-1], 0]
    assert np.abs(mirrored - face.five).mean() < 0.03 * DISTANCE


def test_an_aligned_face_is_found_upright_where_alignment_puts_it(photo):
    """Aligned again, the square is the picture."""
    aligned = crop(photo, FFHQ.square(DlibDetector()(photo)[0]), 256).clamp(0, 1)
    (again,) = DlibDetector()(aligned)
    square = FFHQ.square(again)
    assert abs(square.degrees) < 3
    assert square.side == pytest.approx(256, rel=0.05)
    assert np.abs(np.subtract(square.centre, 128)).max() < 8


def test_a_small_face_is_found(photo):
    small = functional.interpolate(photo[None], (80, 80), mode="area")[0]
    (face,) = DlibDetector()(small)
    assert face.size < 40
    assert np.abs(face.five[[0, 1, 3, 4]] * SIDE / 80 + np.array([LEFT, 0]) - EYES_AND_MOUTH).max() < 6


def test_two_faces_and_none(photo):
    faces = DlibDetector()(torch.cat([photo, photo.roll(40, 1)], -1))
    assert len(faces) == 2
    assert faces[0].score >= faces[1].score
    assert DlibDetector()(torch.full((3, 100, 100), 0.5)) == []


def test_landmarks_in_a_given_box(photo):
    (face,) = DlibDetector()(photo)
    assert np.abs(DlibDetector().within(photo, face.box) - face.landmarks).max() == 0


@pytest.mark.parametrize(
    ("package", "said"), [("dlib", "dlib is not installed"), ("face_recognition_models", "shape_predictor_68")]
)
def test_what_is_missing_is_said(monkeypatch, package, said):
    assert dlib_missing() == ""
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == package else find(name, *more))
    assert said in dlib_missing()
    with pytest.raises(
        ValueError, match=r"faces: expected the detector dlib, got none, since .*pip install pulse-latent\[faces\]"
    ):
        DlibDetector()
