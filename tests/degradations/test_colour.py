"""Colour: luma from the chromaticities of primaries and from Pillow, exposure from the curve of sRGB, curves and inverses."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from degradations.colour import Exposure, Gamma, Greyscale, WhiteBalance, expose
from pulse_framework.testing import DegradationContract, LinearDegradationContract
from pulse_framework.testing.checks import uniform
from tests.degradations.dense import check_bits, check_dense

SHAPE = (3, 5, 7)


def rng():
    return torch.Generator().manual_seed(0)


def luminance(primaries, white):
    """Luminance of red, green and blue whose sum is white of luminance 1, from chromaticities (x, y)."""
    tristimulus = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = white
    return np.linalg.solve(tristimulus, [x / y, 1, (1 - x - y) / y])


@pytest.mark.parametrize(
    ("weights", "primaries", "white", "digits"),
    [
        ("bt601", [(0.67, 0.33), (0.21, 0.71), (0.14, 0.08)], (0.31006, 0.31616), 3),  # NTSC of 1953, illuminant C
        ("bt709", [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)], (0.3127, 0.3290), 4),  # and D65
    ],
)
def test_weights_are_the_luminances_of_the_primaries(weights, primaries, white, digits):
    known = torch.from_numpy(luminance(primaries, white).round(digits))
    A = torch.kron(known[None], torch.eye(35, dtype=torch.float64))
    check_dense(Greyscale(weights), SHAPE, A)


def test_grey_is_pillows():
    levels = torch.randint(256, (1, 3, 40, 50), generator=rng())
    known = np.asarray(Image.fromarray(levels[0].permute(1, 2, 0).byte().numpy()).convert("L"))
    error = 255 * Greyscale()(levels.double() / 255)[0, 0].numpy() - known
    assert np.abs(error).max() <= 0.5 + 255 / 2**16


def test_gains_and_offsets_are_those_of_the_channels():
    x = uniform((2, *SHAPE), 1)
    y = Exposure([0.5, 1, 2.0], torch.tensor([0.1, 0, -0.1]))(x)
    for channel, (gain, offset) in enumerate([(0.5, 0.1), (1, 0), (2, -0.1)]):
        torch.testing.assert_close(y[:, channel], gain * x[:, channel] + offset, rtol=0, atol=1e-8)
    torch.testing.assert_close(Exposure(0.5, 0.25)(x), x / 2 + 0.25, rtol=0, atol=0)
    check_dense(WhiteBalance([0.5, 1, 2.0]), SHAPE, torch.diag(torch.tensor([0.5, 1, 2.0]).double().repeat_interleave(35)))
    check_dense(WhiteBalance(0.5), (1, 2, 3), torch.eye(6, dtype=torch.float64) / 2)


def decoded(x):
    """Linear light of coded values, IEC 61966-2-1."""
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("stops", [-1.5, -0.3, 0.0, 0.5])
def test_a_stop_doubles_linear_light(stops):
    x = 0.15 + 0.65 * uniform((1, *SHAPE), 2)  # neither it nor A(x) reaches the toe
    torch.testing.assert_close(decoded(expose(stops)(x)), 2**stops * decoded(x), rtol=1e-12, atol=0)
    there_and_back = expose(-stops)(expose(stops)(x))
    torch.testing.assert_close(there_and_back, x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.3, 1 / 2.2, 1.0, 1.7, 3.0])
def test_gamma_is_a_power_with_a_line_below_the_toe(gamma):
    x = torch.tensor([-0.1, 0.0, 0.004, 0.01, 0.3, 1.0, 1.2], dtype=torch.float64).reshape(1, 1, 1, -1).requires_grad_()
    y = Gamma(gamma, toe=0.01)(x)
    slope = 0.01**gamma / 0.01
    known = [-0.1 * slope, 0, 0.004 * slope, *(v**gamma for v in (0.01, 0.3, 1.0, 1.2))]
    torch.testing.assert_close(y.flatten(), torch.tensor(known, dtype=torch.float64), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    steep = [slope] * 4 + [gamma * v ** (gamma - 1) for v in (0.3, 1.0, 1.2)]
    torch.testing.assert_close(gradient.flatten(), torch.tensor(steep, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("gamma", [0.45, 2.2])
def test_the_inverse_curve_is_the_inverse_power(gamma):
    x = torch.linspace(-0.2, 1.2, 999, dtype=torch.float64).reshape(1, 1, 27, 37)
    back = Gamma(1 / gamma, toe=0.02**gamma)(Gamma(gamma, toe=0.02)(x))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("gamma", [0.45, 0.999, 1.0, 2.2])
def test_the_gap_of_gamma_is_that_of_the_worst_value(gamma):
    curve = Gamma(gamma, toe=0.05)
    x = torch.linspace(0, 0.06, 60_001, dtype=torch.float64).reshape(1, 1, 1, -1)
    worst = float((curve(x) - x**gamma).abs().max())
    assert curve.gap - 0.5 / 255 == pytest.approx(worst, rel=1e-4, abs=1e-12)


def of_gain(p, x):
    return Exposure(p, 0.1)(x)


def of_offset(p, x):
    return Exposure([1.0, 0.9, 0.8], p)(x)


def of_balance(p, x):
    return WhiteBalance(p)(x)


def of_stops(p, x):
    return expose(p)(x)


def of_gamma(p, x):
    return Gamma(p, toe=0.2)(x)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (of_gain, 0.8),
        (of_gain, [0.8, 1.1, 0.6]),
        (of_offset, -0.1),
        (of_offset, [0.1, -0.2, 0.0]),
        (of_balance, [0.8, 1.1, 0.6]),
        (of_stops, 0.4),
        (of_gamma, 0.6),
        (of_gamma, 1.9),
    ],
)
def test_parameters_have_gradients(make, value):
    """In the parameter and the image at once, against finite differences, on both sides of the toe; again for the next batch."""
    p = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    x = (0.05 + 0.9 * uniform((2, 3, 2, 3), 4)).requires_grad_()
    assert bool((x < 0.2).any())
    assert torch.autograd.gradcheck(make, (p, x))
    single = p.detach().float().requires_grad_()
    y = make(single, x.detach().float())
    assert y.dtype == torch.float32
    assert float(torch.autograd.grad(y.sum(), single)[0].abs().sum()) > 0
    plain = make(value, x.detach())
    torch.testing.assert_close(plain, make(p, x).detach(), rtol=1e-14, atol=1e-16)


def test_an_image_has_the_same_bits_alone_and_in_a_batch():
    for operator in (Greyscale(), Exposure([0.7, 1.1, 0.9], 0.05), WhiteBalance([0.7, 1.1, 0.9]), Gamma(0.45), Gamma(2.2, 0.5)):
        check_bits(operator, SHAPE)
        check_bits(operator, (3, 16, 33))
        x = uniform((5, *SHAPE), 1).float()
        alone = torch.cat([operator.measure(row, rng()) for row in x.split(1)])
        assert torch.equal(operator.measure(x, rng()), alone)


def test_what_is_saved_has_8_bits_and_stays_in_range():
    x = uniform((1, *SHAPE), 1)
    for operator in (Exposure(3.0, -0.5), WhiteBalance(2.0), Gamma(0.5), Greyscale()):
        y = 255 * operator.measure(x, rng())
        torch.testing.assert_close(y, y.round(), rtol=0, atol=1e-12)
        assert y.min() >= 0
        assert y.max() <= 255
    assert Exposure(3.0, -0.5).measure(x, rng()).aminmax() == (0, 1)
    dark = torch.full((1, 1, 1, 1), 4e-4)
    assert float(255 * Gamma(0.5).measure(dark, rng())) == 5  # 255 sqrt(4e-4) = 5.1, although A is a line there


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Greyscale("rec2020"), ValueError, "Greyscale weights: expected one of bt601, bt709, got 'rec2020'"),
        (lambda: Greyscale()(torch.zeros(1, 1, 4, 4)), ValueError, "Greyscale: expected RGB images, of 3 channels, got 1"),
        (lambda: Greyscale().adjoint(torch.zeros(1, 3, 4, 4), (3, 4, 4)), ValueError, "Greyscale adjoint: expected y of shape"),
        (lambda: Exposure(0.0), ValueError, "Exposure gain: expected finite numbers above 0, got"),
        (lambda: Exposure(1.0, [0.0, math.nan]), ValueError, "Exposure offset: expected finite numbers, got"),
        (lambda: Exposure(torch.ones(2, 2)), TypeError, "Exposure gain: expected a float tensor"),
        (lambda: Exposure(torch.ones(3, dtype=torch.int64)), TypeError, "Exposure gain: expected a float tensor"),
        (lambda: Exposure("2"), TypeError, "Exposure gain: expected a number, numbers or a tensor, got '2'"),
        (lambda: Exposure([]), TypeError, "Exposure gain: expected a number, numbers or a tensor, got"),
        (lambda: Exposure(True), TypeError, "Exposure gain: expected a number, numbers or a tensor, got True"),
        (lambda: Exposure([1.0, 2.0])(torch.zeros(1, 3, 4, 4)), ValueError, "Exposure gain: expected 1 number or 3, .* got 2"),
        (lambda: WhiteBalance(1.0).adjoint(torch.zeros(1, 3, 4, 5), (3, 4, 4)), ValueError, "WhiteBalance adjoint: expected y"),
        (lambda: expose([1.0, 2.0]), TypeError, "expose stops: expected one number, got 2"),
        (lambda: Gamma(0), ValueError, "Gamma gamma: expected finite numbers above 0, got"),
        (lambda: Gamma(torch.tensor(-1.0)), ValueError, "Gamma gamma: expected finite numbers above 0, got"),
        (lambda: Gamma(2.0, toe=1.0), ValueError, r"Gamma toe: expected a number in \(0, 1\), got 1.0"),
    ],
)
def test_mistakes_are_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


class TestContractOfGreyscale(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (3, 5, 9))

    def make(self):
        return Greyscale("bt709")

    def oracle(self, x):
        return torch.einsum("nchw,c->nhw", x, torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64))[:, None]


class TestContractOfExposure(DegradationContract):
    image_shapes = ((3, 16, 16), (3, 5, 9))

    def make(self):
        return Exposure([0.9, 1.2, 0.7], 0.1)


class TestContractOfWhiteBalance(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (3, 5, 9))

    def make(self):
        return WhiteBalance([0.9, 1.2, 0.7])


class TestContractOfGamma(DegradationContract):
    image_shapes = ((3, 16, 16), (1, 5, 9))

    def make(self):
        return Gamma(2.2)

    def oracle(self, x):
        return x**2.2


class TestContractOfGammaAroundTheToe(TestContractOfGamma):
    def make(self):
        return Gamma(0.5, toe=0.5)

    def oracle(self, x):
        return torch.where(x > 0.5, x.sqrt(), x * 2**0.5)
