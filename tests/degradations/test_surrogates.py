"""Derivatives that stand in for others: published values, values of A to the bit, and the JPEG that uses them."""

import pytest
import torch

from degradations._surrogates import CLAMPS, ROUNDINGS
from degradations.jpeg import JPEG
from pulse_framework.testing.checks import uniform

POINTS = [-2.0, -0.5, 0.0, 0.2, 0.49, 0.51, 1.0, 1.3, 3.0]


def derivative(function, c, *arguments):
    """Values and derivatives at some points."""
    c = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    y = function(c, *arguments)
    return y.detach(), torch.autograd.grad(y.sum(), c)[0]


def rounded(name):
    return lambda c: ROUNDINGS[name](c.detach().round(), c)


@pytest.mark.parametrize("name", ["straight_through", "sigmoid", "exact"])
def test_every_clamp_clamps(name):
    c = torch.tensor([*POINTS, 0.1, 0.7], dtype=torch.float32)
    for low, high in ((0.0, 1.0), (0.1, 0.7)):
        assert torch.equal(CLAMPS[name](c.clone().requires_grad_(), low, high).detach(), c.clamp(low, high))


def test_derivatives_of_clamps():
    at = [-0.5, 0.0, 0.5, 1.0, 1.5]
    published = torch.tensor([0.21, 0.393, 0.5, 0.393, 0.21], dtype=torch.float64)
    for low, high in ((0.0, 1.0), (0.1, 0.7)):
        c = [low + (high - low) * u for u in at]
        torch.testing.assert_close(derivative(CLAMPS["sigmoid"], c, low, high)[1], published, rtol=0, atol=5e-4)
        assert derivative(CLAMPS["straight_through"], c, low, high)[1].tolist() == [1] * 5
        inside = [low - 0.2, low + 0.01, high - 0.01, high + 0.2]
        assert derivative(CLAMPS["exact"], inside, low, high)[1].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("name", ["straight_through", "leaky_cubic"])
def test_true_roundings_round(name):
    c = torch.tensor(POINTS, dtype=torch.float32).requires_grad_()
    assert torch.equal(rounded(name)(c).detach(), c.detach().round())


def test_derivatives_of_roundings():
    c = [-1.0, 0.0, 0.25, 0.499999999, 2.6]
    away = torch.tensor([0, 0, 0.25, 0.5, -0.4], dtype=torch.float64)
    assert derivative(rounded("straight_through"), c)[1].tolist() == [1] * 5
    published = torch.tensor([0.2, 0.2, 0.35, 0.8, 0.584], dtype=torch.float64)
    torch.testing.assert_close(derivative(rounded("leaky_cubic"), c)[1], published, rtol=0, atol=1e-8)
    y, slope = derivative(rounded("cubic"), c)
    torch.testing.assert_close(y, torch.tensor(c, dtype=torch.float64).round() + away**3, rtol=0, atol=1e-8)
    torch.testing.assert_close(slope, 3 * away**2, rtol=0, atol=1e-8)


def test_jpeg_with_the_leaky_rounding_is_the_codec_and_differs_in_its_derivative():
    x = uniform((2, 3, 16, 24), 3)
    leaky, straight = JPEG(20, rounding="leaky_cubic"), JPEG(20)
    assert torch.equal(leaky(x), straight(x))
    assert leaky.surrogate
    assert leaky.gap == straight.gap
    for level, slope in ((134, 0.2), (135, 0.8)):  # a grey constant is one coefficient, 8 (levels - 128) / 16: 3 and 3.5
        x = torch.full((1, 1, 8, 8), level / 255, dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(JPEG(50, rounding="leaky_cubic")(x).mean(), x)
        assert float(gradient.sum()) == pytest.approx(slope)
