"""Moments of the noise against theory: means of many numbers, within five standard errors."""

import math

import pytest
import torch

from degradations.noise import DropOut, GaussianNoise, PoissonNoise, SaltAndPepper, SpeckleNoise
from pulse_framework.testing import LinearDegradationContract

COUNT = 300_000
# the noise, and the mean and variance of y where the image is x
NOISES = {
    "gaussian": (GaussianNoise(0.2, bits=None), lambda x: (x, 0.04)),
    "poisson": (PoissonNoise(7.0, bits=None), lambda x: (x, x / 7)),
    "poisson, read": (PoissonNoise(7.0, 0.3, bits=None), lambda x: (x, x / 7 + 0.09)),
    "salt and pepper": (
        SaltAndPepper(0.3, whole=False, bits=None),
        lambda x: (0.7 * x + 0.15, 0.7 * x**2 + 0.15 - (0.7 * x + 0.15) ** 2),
    ),
    "speckle": (SpeckleNoise(0.2, bits=None), lambda x: (x, 0.04 * x**2)),
    "drop-out": (DropOut(0.3, whole=False, bits=None), lambda x: (0.7 * x, 0.21 * x**2)),
}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("x", [0.25, 0.8])
def test_mean_and_variance(name, x):
    noise, theory = NOISES[name]
    y = noise.measure(torch.full((1, 3, 100, COUNT // 300), x, dtype=torch.float64), rng()).flatten()
    mean, variance = theory(x)
    squares = (y - mean).square()
    assert abs(float(y.mean()) - mean) <= 5 * math.sqrt(variance / COUNT)
    assert abs(float(squares.mean()) - variance) <= 5 * float(squares.std()) / math.sqrt(COUNT)


@pytest.mark.parametrize("name", NOISES)
def test_neighbours_are_independent(name):
    noise, theory = NOISES[name]
    y = noise.measure(torch.full((1, 3, 100, COUNT // 300), 0.5, dtype=torch.float64), rng())[0]
    mean, variance = theory(0.5)
    r = (y - mean) / math.sqrt(variance)
    for axis in range(3):
        assert abs(float((r * r.roll(1, axis)).mean())) <= 5 / math.sqrt(COUNT)


def test_photons_come_in_whole_numbers_and_none_from_black():
    y = PoissonNoise(7.0, bits=None).measure(torch.rand(1, 3, 9, 9, generator=rng(), dtype=torch.float64), rng())
    torch.testing.assert_close(7 * y, (7 * y).round(), rtol=0, atol=1e-12)
    assert not PoissonNoise(7.0).measure(torch.full((1, 1, 4, 4), -0.1), rng()).any()


def test_salt_pepper_and_lost_pixels_leave_the_rest_alone():
    x = 0.1 + 0.8 * torch.rand(1, 3, 200, 200, generator=rng(), dtype=torch.float64)
    for noise, values in ((SaltAndPepper(0.2, bits=None), (0.0, 1.0)), (DropOut(0.2, bits=None), (0.0,))):
        y = noise.measure(x, rng())
        hit = y != x
        assert set(y[hit].tolist()) == set(values)
        assert torch.equal(hit.any(1), hit.all(1))  # the channels of a pixel together
        assert float(hit.double().mean()) == pytest.approx(0.2, abs=5 * math.sqrt(0.2 * 0.8 / 40_000))


def test_bits_are_those_of_a_saved_file():
    x = torch.rand(1, 3, 50, 50, generator=rng(), dtype=torch.float64)
    raw = GaussianNoise(0.5, bits=None).measure(x, rng(3))
    assert raw.min() < 0 < 1 < raw.max()
    for bits, levels in ((1, 1), (8, 255), (16, 65535)):
        saved = GaussianNoise(0.5, bits=bits).measure(x, rng(3))
        torch.testing.assert_close(saved, (raw.clamp(0, 1) * levels).round() / levels, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(0.0), "GaussianNoise sigma"),
        (lambda: SpeckleNoise(math.nan), "SpeckleNoise sigma"),
        (lambda: PoissonNoise(-1.0), "PoissonNoise peak"),
        (lambda: PoissonNoise(1.0, -0.1), "PoissonNoise sigma"),
        (lambda: SaltAndPepper(1.1), "SaltAndPepper p"),
        (lambda: DropOut(0.0), "DropOut p"),
        (lambda: GaussianNoise(0.1, bits=0), "GaussianNoise bits"),
        (lambda: DropOut(0.1, bits=True), "DropOut bits"),
        (lambda: GaussianNoise(0.1).adjoint(torch.zeros(1, 3, 4, 4), (3, 4, 5)), "GaussianNoise adjoint"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=f"{message}: expected .* got"):
        make()


class TestContractOfGaussianNoise(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (1, 24, 20))
    keeps_constants = True

    def make(self):
        return GaussianNoise(0.1)

    def oracle(self, x):
        return x


class TestContractOfPoissonNoise(TestContractOfGaussianNoise):
    def make(self):
        return PoissonNoise(30.0, 0.05)

    def images(self, shape, count=3):
        return 0.5 + super().images(shape, count) - 0.1


class TestContractOfSaltAndPepper(TestContractOfGaussianNoise):
    def make(self):
        return SaltAndPepper(0.05)


class TestContractOfSpeckleNoise(TestContractOfGaussianNoise):
    def make(self):
        return SpeckleNoise(0.1)


class TestContractOfDropOut(TestContractOfGaussianNoise):
    def make(self):
        return DropOut(0.1)
