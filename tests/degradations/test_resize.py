"""Resizing against PyTorch's, and the size that a chain ends with."""

from fractions import Fraction

import pytest
import torch

from degradations.compose import LinearCompose, compose
from degradations.downscale import Downscale
from degradations.resize import Fit, Resize
from pulse_framework.testing import LinearDegradationContract
from pulse_framework.testing.checks import uniform

MODES = {"box": "area", "bilinear": "bilinear", "bicubic": "bicubic"}


@pytest.mark.parametrize("kernel", MODES)
@pytest.mark.parametrize("scale", [0.15, "1/3", 0.5, 0.83, 1, 1.2, 1.5, 2, 3.7])
def test_it_is_interpolate(kernel, scale):
    x = uniform((2, 3, 21, 32), 1)
    size = [int(Fraction(str(scale)) * side) for side in (21, 32)]
    how = {} if kernel == "box" else {"align_corners": False}
    expected = torch.nn.functional.interpolate(x, size, mode=MODES[kernel], **how)
    a = Resize(scale, kernel=kernel)
    assert a.measurement_shape((3, 21, 32)) == (3, *size)
    assert torch.allclose(a(x), expected, atol=1e-12)


def test_scale_and_factor_are_inverses_and_no_side_vanishes():
    assert Resize(factor="8/3").scale == Resize("3/8").scale == Fraction(3, 8)
    assert Fit(factor=4, times=0.5).scale == Fraction(1, 8)
    assert Resize(factor=100).measurement_shape((3, 16, 16)) == (3, 1, 1)
    x = uniform((1, 3, 16, 16), 1)
    assert torch.allclose(Resize(factor=100, kernel="box")(x)[..., 0, 0], x.mean((2, 3)))


def test_a_chain_ends_with_the_size_that_fits_its_own_image():
    """Whatever was done on the way, and rounded: 31 x 40 reduced by 4 is 7 x 10."""
    x = uniform((2, 3, 31, 40), 2)
    for way in ([Resize(0.7)], [Resize(1.3), Downscale(3)], [Downscale("7/3"), Resize(2.1, kernel="box")], []):
        a = compose([*way, Fit(factor=4, kernel="bilinear")])
        assert isinstance(a, LinearCompose)
        assert a.measurement_shape((3, 31, 40)) == (3, 7, 10)
        between = compose(way)(x) if way else x
        expected = torch.nn.functional.interpolate(between, (7, 10), mode="bilinear", align_corners=False)
        assert torch.allclose(a(x), expected, atol=1e-12)
        y = uniform((2, 3, 7, 10), 3)
        assert float((a(x) * y).sum()) == pytest.approx(float((x * a.adjoint(y, (3, 31, 40))).sum()), rel=1e-12)
    assert Fit(factor=4).measurement_shape((3, 31, 40)) == (3, 7, 10)
    back = compose([Resize(0.3), Fit(1)])
    assert back.measurement_shape((3, 31, 40)) == (3, 31, 40)
    assert compose([Resize(0.3), compose([Fit(factor=2)])]).measurement_shape((3, 30, 40)) == (3, 4, 6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resize(),
        lambda: Resize(1, 1),
        lambda: Resize(0),
        lambda: Resize(factor=0),
        lambda: Resize(-1),
        lambda: Resize(float("nan")),
        lambda: Resize("1/0"),
        lambda: Resize(1, kernel="lanczos"),
        lambda: Fit(1, times=0),
    ],
)
def test_wrong_settings(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_integers_and_wrong_measurements():
    with pytest.raises(TypeError, match="expected a tensor of floats"):
        Resize(2)(torch.zeros(1, 3, 4, 4, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"Resize adjoint: expected y of shape \(N, \*\(3, 8, 8\)\)"):
        Resize(2).adjoint(torch.zeros(1, 3, 4, 4), (3, 4, 4))


class TestSmaller(LinearDegradationContract):
    keeps_constants = True
    image_shapes = ((3, 16, 11), (1, 5, 5))

    def make(self):
        return Resize(0.7)


class TestLarger(LinearDegradationContract):
    keeps_constants = True

    def make(self):
        return Resize(1.4, kernel="bilinear")


class TestFit(LinearDegradationContract):
    keeps_constants = True
    image_shapes = ((3, 16, 11), (1, 12, 12))

    def make(self):
        return compose([Resize(0.6, kernel="box"), Fit(factor=2)])
