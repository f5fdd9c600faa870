"""The warp against downscaling, its dense matrix and what alignment does."""

import warnings

import pytest
import torch

from degradations.compose import compose
from degradations.downscale import Downscale
from degradations.noise import GaussianNoise
from degradations.warp import Warp
from pulse_framework.affine import invert, taps
from pulse_framework.testing import LinearDegradationContract
from pulse_framework.testing.checks import uniform
from tests.degradations.dense import check_bits, check_dense

TURNED = [[3.2, 0.6], [13.4, 2.7], [1.1, 10.8]]


@pytest.mark.parametrize("factor", [2, 4])
def test_upright_it_is_a_downscale(factor):
    x = uniform((2, 3, 16, 24), 1)
    a = Warp([[0, 0], [24 / factor, 0], [0, 16 / factor]], 16 // factor, 24 // factor)
    assert torch.allclose(a(x), Downscale(factor, library="pil")(x), atol=1e-12)
    assert bool((a.mask((3, 16, 24)) == 1).all())


def test_a_shift_by_whole_pixels_keeps_the_pixels():
    x = uniform((1, 1, 4, 4), 1)
    a = Warp([[2, 1], [6, 1], [2, 5]], 7, 8)
    y = a(x)
    assert torch.allclose(y[..., 1:5, 2:6], x, atol=1e-14)
    expected = torch.zeros(1, 7, 8)
    expected[:, 1:5, 2:6] = 1
    assert torch.equal(a.mask((1, 4, 4)), expected)
    assert bool((y[0][expected == 0] == 0).all())


def test_dense_matrix_and_bits():
    matrix = invert([[10.2 / 8, -2.1 / 8, 3.2], [2.1 / 8, 10.2 / 8, 0.6]])
    made = taps(matrix, (8, 8), (12, 14))
    one = torch.zeros(12 * 14, 64).double().scatter_add_(1, made.index, made.weight) * made.covered.flatten()[:, None]
    check_dense(Warp(TURNED, 12, 14), (1, 8, 8), one)
    check_bits(Warp(TURNED, 12, 14), (3, 8, 8))
    check_bits(Warp(TURNED, 6, 7), (3, 40, 40))


def test_a_face_of_twenty_pixels_is_measured_on_twenty_pixels():
    a = Warp([[2, 4], [22, 4], [2, 24]], 28, 26)
    assert a.measurement_shape((3, 64, 64)) == (3, 28, 26)
    assert int(a.mask((3, 64, 64)).sum()) == 400
    assert a.measurement_shape((3, 256, 256)) == (3, 28, 26)
    turned = Warp(TURNED, 12, 14)
    assert torch.equal(turned.mask((3, 64, 64)), turned.mask((1, 37, 37)))


def test_it_composes_with_noise_and_keeps_its_mask():
    chain = compose([Warp(TURNED, 12, 14), GaussianNoise(0.1)])
    assert torch.equal(chain.mask((3, 8, 8)), Warp(TURNED, 12, 14).mask((3, 8, 8)))


def test_functional_transforms_go_through():
    """As second-order searches use them."""
    a, x, v = Warp(TURNED, 12, 14), uniform((1, 3, 8, 8), 1), uniform((2, 1, 3, 8, 8), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, when it loads its forward derivatives
        pushed = torch.func.vmap(lambda direction: torch.func.jvp(a, (x,), (direction,))[1])(v)
    assert torch.allclose(pushed, torch.stack([a(row) for row in v]), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Warp([[0, 0], [1, 1]], 4, 4), "Warp corners: expected three points"),
        (lambda: Warp([[0, 0], [1, 1], [2, 2]], 4, 4), "that span an area"),
        (lambda: Warp([[0, 0], [float("inf"), 1], [0, 2]], 4, 4), "Warp corners"),
        (lambda: Warp(TURNED, 0, 4), "expected a measurement of at least 1 x 1, got 0 x 4"),
        (lambda: Warp(TURNED, 4, 4, "box"), "Warp kernel: expected one of bilinear, bicubic, lanczos3, got 'box'"),
        (lambda: Warp([[9, 9], [12, 9], [9, 12]], 4, 4).measurement_shape((3, 8, 8)), "an image that covers a pixel of 4 x 4"),
        (lambda: Warp(TURNED, 4, 4).adjoint(torch.zeros(1, 3, 5, 4), (3, 8, 8)), r"Warp adjoint: expected y of shape"),
    ],
)
def test_wrong_settings(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_integers():
    with pytest.raises(TypeError, match="expected a tensor of floats"):
        Warp(TURNED, 12, 14)(torch.zeros(1, 3, 8, 8, dtype=torch.int32))


class TestSmallFace(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (1, 24, 20))

    def make(self):
        return Warp([[2.2, -1.3], [9.4, 0.7], [0.1, 6.2]], 8, 9)


class TestLargeFaceWhollyCovered(LinearDegradationContract):
    keeps_constants = True

    def make(self):
        return Warp([[-5, -9], [34, -4], [-9, 31]], 18, 17, kernel="bilinear")
