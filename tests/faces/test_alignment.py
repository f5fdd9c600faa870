"""The crop of FFHQ against the program of its authors, and there and back again."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pulse_framework.faces import FFHQ, Face, Framing, Square, crop, place
from pulse_framework.images import read_image
from tests.faces import published

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.jpg"


def portrait_face(turn=0.0, scale=1.0, shift=(0.0, 0.0)):
    """68 landmarks, as pixels' indices: those of the portrait that alignment uses are true; turned about the face and moved."""
    points = np.full((68, 2), 225.0) + np.random.default_rng(0).uniform(-20, 20, (68, 2))
    eye = np.array([[-8, 0], [-4, -2], [4, -2], [8, 0], [4, 2], [-4, 2]])
    points[36:42], points[42:48] = eye + np.array([204, 102]), eye + np.array([247, 104])
    points[[30, 48, 54]] = [[225, 127], [201, 139], [246, 141]]
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return (points - 225) @ np.array([[c, s], [-s, c]]) * scale + 225 + shift


def face(points):
    return Face((175, 80, 265, 170), points + 0.5)


@pytest.mark.parametrize(
    ("turn", "scale", "shift"), [(0, 1, (0, 0)), (33, 1.2, (10, 60)), (-20, 0.4, (30, -20)), (180, 1, (0, 0)), (5, 1, (0, -90))]
)
def test_square_is_the_published_quadrilateral(turn, scale, shift):
    points = portrait_face(turn, scale, shift)
    top_left, bottom_left, bottom_right, top_right = published.quadrilateral(points) + 0.5
    square = FFHQ.square(face(points))
    assert np.allclose(square.corners, [top_left, top_right, bottom_left], atol=1e-9)
    assert square.side == pytest.approx(np.hypot(*(top_right - top_left)))
    assert np.allclose(square.matrix(7) @ [7, 7, 1], bottom_right)
    assert math.cos(math.radians(square.degrees - turn - 2.6)) > 0.9999


@pytest.mark.parametrize(
    ("size", "turn", "scale", "shift", "off"),
    [
        (256, 0, 1, (0, 0), 0),  # enlarged: bilinear there, Lanczos here
        (64, 25, 1, (0, 40), 0),  # reduced
        (64, 0, 2.0, (0, 60), 0.5),  # reduced by 2 first; leaves the photo at the top
        (128, -15, 1, (-120, -60), 0),  # leaves the photo at the top and left
        (96, 0, 1, (270, 0), 0),  # the face is cut by the edge
    ],
)
def test_crop_is_the_published_one(size, turn, scale, shift, off):
    """Mean differences in 8-bit levels; half a pixel of shift is more than what is left."""
    points = portrait_face(turn, scale, shift)
    expected = np.asarray(published.crop(Image.open(PORTRAIT), points, size)).astype(float)
    errors = []
    for move in (off, off + 0.5, off - 0.5):
        got = crop(read_image(PORTRAIT), FFHQ.square(face(points)).moved(move, move), size).clamp(0, 1)
        errors.append(np.abs(got.permute(1, 2, 0).numpy() * 255 - expected).mean())
    assert errors[0] < 1.7
    assert 1.2 * errors[0] < min(errors[1:])


@pytest.mark.parametrize(("scale", "down"), [(1.4, 0.1), (0.8, -0.05)])
@pytest.mark.parametrize("turn", [0, 40])
def test_framing_is_relative_to_the_square(scale, down, turn):
    plain = FFHQ.square(face(portrait_face(turn)))
    other = Framing(scale=scale, down=down).square(face(portrait_face(turn)))
    assert other.side == pytest.approx(scale * plain.side)
    assert other.degrees == pytest.approx(plain.degrees)
    downwards = np.array([-plain.axis[1], plain.axis[0]]) * 2
    assert np.allclose(np.subtract(other.centre, plain.centre), down * downwards)


def test_five_landmarks_and_68_give_one_square():
    whole = face(portrait_face(12))
    five = Face(whole.box, whole.five)
    assert FFHQ.square(five) == FFHQ.square(whole)


def test_a_box_alone_gives_an_upright_square_like_that_of_the_landmarks():
    with_landmarks = FFHQ.square(face(portrait_face()))
    by_box = FFHQ.square(Face((171, 79, 265, 173)))
    assert by_box.degrees == 0
    assert by_box.side == pytest.approx(with_landmarks.side, rel=0.05)
    assert np.hypot(*np.subtract(by_box.centre, with_landmarks.centre)) < 0.06 * with_landmarks.side


def test_middle_of_a_photo():
    square = Framing.middle(40, 60)
    assert square == Square((30, 20), (20, 0))
    x = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(crop(x, square, 40), x[:, :, 10:50], atol=1e-6)


@pytest.mark.parametrize("turn", [0, 30, 90])
@pytest.mark.parametrize("size", [40, 90, 200])
def test_crop_is_exact_to_a_fraction_of_a_pixel_both_ways(turn, size):
    """Of a smooth picture, crop and place give the values at the mapped points, and each other's inverse."""
    square = Square((61.3, 58.7), (33 * math.cos(math.radians(turn)), 33 * math.sin(math.radians(turn))))
    photo = wave(np.eye(2, 3), 120, 124)
    expected = wave(square.matrix(size), size, size)
    made = crop(photo, square, size)
    assert float((made - expected).abs().max()) < 4e-3
    top, left, bottom, right = square.window(120, 124)
    back, mask = place(expected, square.moved(-left, -top), bottom - top, right - left)
    part = photo[:, top:bottom, left:right]
    assert float(((back - part) * mask).abs().max()) < 1e-2
    assert float(((back - part) * mask).abs().sum() / mask.sum()) < 1e-3
    assert float(mask.sum()) == pytest.approx(66 * 66, rel=0.06)
    assert bool((back[:, mask[0] == 0] == 0).all())


def wave(matrix, height, width):
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    u, v = np.tensordot(np.asarray(matrix), np.stack([x, y, np.ones_like(x)]), 1)
    return torch.from_numpy(0.5 + 0.2 * np.sin(0.21 * u + 0.1) * np.cos(0.17 * v) + 0.1 * np.cos(0.1 * u + 0.15 * v))[None]


def test_there_and_back_the_portrait_is_the_same():
    photo, square = read_image(PORTRAIT), FFHQ.square(face(portrait_face()))
    top, left, bottom, right = square.window(512, 512)
    back, mask = place(crop(photo, square, 256), square.moved(-left, -top), bottom - top, right - left)
    error = ((back - photo[:, top:bottom, left:right]).abs() * mask).sum() / mask.sum() / 3
    assert float(error) < 1 / 255


def test_scaled_squares_and_windows():
    square = Square((10.5, 20), (3, 4))
    assert square.side == 10
    assert square.scaled(2) == Square((21, 40), (6, 8))
    assert square.window(100, 100) == (13, 3, 27, 18)
    assert square.window(100, 100, margin=2) == (11, 1, 29, 20)
    assert square.window(25, 15) == (13, 3, 25, 15)
    with pytest.raises(ValueError, match=r"expected a square that touches the photo of 100 x 3 \(height x width\)"):
        square.window(100, 3)


def test_a_face_at_the_edge_of_a_photo_smaller_than_its_square():
    x = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    made = crop(x, Square((2, 3), (20, 5)), 24)
    assert made.shape == (3, 24, 24)
    assert bool(made.isfinite().all())
    assert bool(crop(x[:, :1, :1], Square((0, 0), (4, 0)), 5).isfinite().all())


@given(
    x=st.floats(-60, 80),
    y=st.floats(-60, 80),
    turn=st.floats(-4, 4),
    half=st.floats(0.5, 70),
    h=st.integers(1, 30),
    w=st.integers(1, 30),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_square_gives_a_picture_or_a_reason(x, y, turn, half, h, w):
    photo = torch.rand(3, h, w, generator=torch.Generator().manual_seed(0))
    square = Square((x, y), (half * math.cos(turn), half * math.sin(turn)))
    reach = abs(square.axis[0]) + abs(square.axis[1])
    border = max(round(square.side * 0.1), 3)
    touches = all(-reach - border < at < side + reach + border for at, side in ((x, w), (y, h)))
    if not touches or square.side > 8 * max(h, w):
        with pytest.raises(ValueError, match="expected a square"):
            crop(photo, square, 9)
        return
    made = crop(photo, square, 9)
    assert made.shape == (3, 9, 9)
    assert -0.5 < float(made.min()) <= float(made.max()) < 1.5


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Framing(by="eyes"), "framing by: expected ffhq or centre, got 'eyes'"),
        (lambda: Framing(scale=0), "framing: expected a positive scale"),
        (lambda: Framing(by="centre").square(face(portrait_face())), "framing: expected one by ffhq for a face"),
        (lambda: FFHQ.square(Face((0, 0, 1, 1), np.ones((5, 2)))), "face landmarks: expected eyes and mouth apart"),
        (lambda: Face((0, 0, 0, 1)), "face box: expected left < right and top < bottom"),
        (lambda: Face((0, 0, 1, math.nan)), "face box"),
        (lambda: Face((0, 0, 1, 1), np.ones((4, 2))), r"expected 68 or 5 finite points \(x, y\), got an array of shape \(4, 2\)"),
        (lambda: Face((0, 0, 1, 1), np.full((5, 2), math.nan)), "finite points"),
        (lambda: crop(torch.zeros(3, 8, 8), Square((4, 4), (2, 0)), 0), "crop size: expected at least 1 pixel"),
        (
            lambda: crop(torch.zeros(3, 8, 8), Square((4, 4), (1e9, 0)), 4),
            "crop: expected a square of at most 8 times the photo's 8 x 8",
        ),
        (lambda: crop(torch.zeros(3, 8, 8), Square((4, 4), (math.nan, 0)), 4), "crop: expected a square of at most 8 times"),
    ],
)
def test_wrong_arguments(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_integers():
    with pytest.raises(TypeError, match="crop: expected a photo of floats"):
        crop(torch.zeros(3, 8, 8, dtype=torch.uint8), Square((4, 4), (2, 0)), 4)
