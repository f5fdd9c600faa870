"""Masks: which pixels are observed, by hand and by the geometry of what was drawn; and what is known put back."""

import math

import pytest
import torch
from PIL import Image

from degradations.mask import Mask, box, load, random, strokes, uncrop
from pulse_framework.testing import LinearDegradationContract
from pulse_framework.testing.checks import uniform
from tests.degradations.dense import check_bits, check_dense

SOME = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 0]])


def of(text):
    """A mask drawn with # (hidden) and . (observed)."""
    return torch.tensor([[[float(letter == ".") for letter in row] for row in text.split()]])


def rng():
    return torch.Generator().manual_seed(0)


def test_it_is_a_diagonal_matrix_of_0_and_1():
    check_dense(Mask(SOME), (2, 3, 4), torch.diag(SOME.double().flatten().repeat(2)))
    check_bits(Mask(SOME), (3, 3, 4))
    x = uniform((2, 3, 3, 4), 1)
    y = Mask(SOME)(x)
    assert torch.equal(Mask(SOME)(y), y)


@pytest.mark.parametrize(
    ("made", "known"),
    [
        (box(top=1, left=2, height=2, width=3), "...... ..###. ..###. ......"),
        (box(0.5), "...... .###.. .###.. ......"),
        (uncrop(0.5), "###### #...## #...## ######"),
        (uncrop(top=0, left=5, height=1, width=1), "#####. ###### ###### ######"),
        (uncrop(1.0), "...... ...... ...... ......"),
        (uncrop(0.01), "###### ##.### ###### ######"),
    ],
)
def test_rectangles(made, known):
    assert torch.equal(made.mask((3, 4, 6)), of(known))
    x = uniform((2, 3, 4, 6), 1)
    assert torch.equal(made(x), x * of(known))


def test_a_given_mask_serves_its_own_size_and_a_function_any():
    given = Mask(SOME)
    assert torch.equal(given.mask((1, 3, 4)), SOME[None])
    with pytest.raises(ValueError, match=r"Mask: expected images of 3 x 4 \(height x width\), as the mask is, got 4 x 4; resize"):
        given.measurement_shape((1, 4, 4))
    stripes = Mask(lambda height, width: (torch.arange(height) % 2).float()[:, None].expand(height, width))
    assert torch.equal(stripes.mask((3, 4, 3)), of("### ... ### ..."))
    assert torch.equal(stripes(torch.ones(1, 1, 2, 2)), torch.tensor([[[[0.0, 0], [1, 1]]]]))
    assert repr(given) == "Mask(3x4, observed=0.583)"


def test_nobody_can_change_a_mask():
    own = SOME.clone()
    made = Mask(own)
    own.zero_()
    made.mask((1, 3, 4)).zero_()
    made.adjoint(torch.ones(1, 1, 3, 4), (1, 3, 4)).zero_()
    assert torch.equal(made.mask((1, 3, 4))[0], SOME)


def test_first_use_in_inference_mode_does_not_spoil_later_gradients():
    made = random(0.5, seed=987)
    with torch.inference_mode():
        made(torch.zeros(1, 1, 7, 7))
    x = torch.zeros(1, 1, 7, 7, requires_grad=True)
    made(x).sum().backward()
    assert torch.equal(x.grad[0], made.mask((1, 7, 7)))


@pytest.mark.parametrize(("share", "count"), [(0.5, 46), (0.1, 9), (1.0, 91), (0.001, 1)])
def test_random_pixels_are_as_many_as_were_asked_for(share, count):
    assert int(random(share).mask((3, 7, 13)).sum()) == count


def test_random_pixels_are_random():
    masks = torch.stack([random(0.3, seed).mask((3, 8, 8))[0] for seed in range(400)])
    p = 19 / 64  # round(0.3 * 64)
    assert bool(((masks.mean(0) - p).abs() < 4.5 * math.sqrt(p * (1 - p) / 400)).all())
    neighbours = (masks[:, :, 1:] * masks[:, :, :-1]).mean()
    assert float(neighbours) == pytest.approx(p * 18 / 63, abs=0.01)
    assert torch.equal(random(0.3, 5).mask((3, 8, 8))[0], masks[5])
    assert len({tuple(row.flatten().tolist()) for row in masks}) == 400


def capsule(hidden):
    """Length between the ends, width and ends of a thick line with round ends, from its pixels."""
    at = hidden.nonzero().double() + 0.5
    middle = at.mean(0)
    axis = torch.linalg.eigh((at - middle).T @ (at - middle))[1][:, 1]
    along, across = (at - middle) @ axis, (at - middle) @ torch.stack([-axis[1], axis[0]])
    width = float(across.max() - across.min())
    ends = [middle + axis * (along.min() + width / 2), middle + axis * (along.max() - width / 2)]
    return float(along.max() - along.min()) - width, width, ends


def test_a_stroke_is_a_thick_line_with_round_ends_in_the_outer_thirds():
    side, corners, long = 200, set(), 0
    for seed in range(24):
        hidden = strokes(1, 0.08, seed).mask((3, side, side))[0] == 0
        length, width, ends = capsule(hidden)
        if length < 50:  # too round to measure, and shorter than between two thirds
            continue
        long += 1
        assert width == pytest.approx(0.08 * side, abs=2)
        assert float(hidden.sum()) == pytest.approx(length * width + math.pi * width**2 / 4, rel=0.08)
        for end in ends:
            thirds = [3 * float(value) / side for value in end]
            assert all(-0.03 < third < 1.03 or 1.97 < third < 3.03 for third in thirds), thirds
            corners.add(tuple(third > 1.5 for third in thirds))
    assert long >= 12
    assert len(corners) == 4


def test_strokes_are_the_same_at_any_size_and_as_many_as_were_asked_for():
    small, large = (strokes(5, seed=3).mask((3, side, side))[0] for side in (64, 192))
    assert torch.equal(large[1::3, 1::3], small)  # the same points of the picture
    areas = [float(1 - strokes(count, seed=3).mask((3, 64, 64)).mean()) for count in (1, 5, 17)]
    assert areas == sorted(areas)
    assert len(set(areas)) == 3
    assert not torch.equal(strokes(5, seed=4).mask((3, 64, 64))[0], small)
    tall = strokes(1, 0.08, 1).mask((3, 300, 100))[0] == 0
    assert capsule(tall)[1] == pytest.approx(8, abs=2)  # of the smaller side


@pytest.mark.parametrize("invert", [False, True])
def test_a_picture_as_a_mask(tmp_path, invert):
    levels = torch.where(SOME == 1, 200, 100).byte()
    Image.fromarray(levels.numpy()).save(tmp_path / "m.png")
    made = load(tmp_path / "m.png", invert)
    assert torch.equal(made.mask((3, 3, 4))[0], 1 - SOME if invert else SOME)
    with pytest.raises(ValueError, match=r"none\.png"):
        load(tmp_path / "none.png")


def test_the_measurement_is_black_where_nothing_was_observed():
    y = Mask(SOME).measure(uniform((1, 3, 3, 4), 1) * 2 - 0.5, rng())
    assert not y[..., SOME == 0].any()
    torch.testing.assert_close(255 * y, (255 * y).round(), rtol=0, atol=1e-12)
    assert y.aminmax() == (0, 1)


RECTANGLE = "expected either fraction or all of top, left, height, width, got"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mask(torch.full((2, 2), 0.5)), r"Mask: expected a matrix \(H, W\) of 0 \(hidden\) and 1 \(observed\), got"),
        (lambda: Mask(torch.ones(1, 2, 2)), r"Mask: expected a matrix .* got torch.float32 of shape \(1, 2, 2\)"),
        (lambda: Mask(torch.zeros(2, 2)), "Mask: expected at least one observed pixel"),
        (lambda: box(1.0).mask((3, 4, 4)), "Mask: expected at least one observed pixel"),
        (lambda: box(), f"box: {RECTANGLE}"),
        (lambda: box(0.5, top=1), f"box: {RECTANGLE}"),
        (lambda: uncrop(top=1, left=1, height=2), f"uncrop: {RECTANGLE}"),
        (lambda: box(0.0), "box fraction: expected a fraction in"),
        (lambda: uncrop(1.1), "uncrop fraction: expected a fraction in"),
        (lambda: box(top=-1, left=0, height=1, width=1), "box: expected top and left of at least 0"),
        (lambda: box(top=2, left=2, height=2, width=3)(torch.zeros(1, 1, 4, 4)), "reaches row 4 and column 5; move"),
        (lambda: random(0.0), "random observed: expected a fraction in"),
        (lambda: strokes(0), "strokes count: expected at least 1, got 0"),
        (lambda: strokes(1, 0.0), "strokes width: expected a fraction in"),
        (lambda: box(0.5).adjoint(torch.zeros(1, 1, 4, 4), (1, 4, 5)), "Mask adjoint: expected y of shape"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class TestContractOfBox(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (1, 9, 12))

    def make(self):
        return box(0.5)


class TestContractOfStrokes(TestContractOfBox):
    def make(self):
        return strokes(3)


class TestContractOfRandom(TestContractOfBox):
    def make(self):
        return random(0.4)

    def oracle(self, x):
        return torch.where(self.make().mask(tuple(x.shape[1:])) == 1, x, 0.0)


class TestContractOfUncrop(TestContractOfBox):
    def make(self):
        return uncrop(0.4)
