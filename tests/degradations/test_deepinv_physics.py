"""deepinv's operators both ways, on stand-ins: deepinv itself cannot be imported without torchvision, which is not installed."""

import copy
import math
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional

from degradations.bridge import CallableDegradation
from degradations.deepinv_physics import DeepinvDegradation, LinearDeepinvDegradation, from_deepinv, to_deepinv
from degradations.downscale import Downscale
from degradations.noise import SpeckleNoise
from pulse_framework.testing import DegradationContract, LinearDegradationContract
from pulse_framework.testing.checks import left_alone
from tests.degradations.deepinv_standins import (
    GaussianNoise,
    LinearPhysics,
    Masking,
    Photons,
    Physics,
    Spectrum,
    StackedLinearPhysics,
)
from tests.degradations.dense import check_bits, check_dense

SHAPE = (3, 6, 6)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=2):
    return torch.rand(count, *SHAPE, generator=rng(5))


def pooling(**arguments):
    """Means of 3 x 3, as a linear operator of deepinv."""
    return LinearPhysics(
        A=lambda x: functional.avg_pool2d(x, 3),
        A_adjoint=lambda y: y.repeat_interleave(3, 2).repeat_interleave(3, 3) / 9,
        **arguments,
    )


def stacked(noise=0.0):
    return StackedLinearPhysics(
        [pooling(noise_model=GaussianNoise(noise, rng(1))), Masking(noise_model=GaussianNoise(noise / 2))]
    )


@pytest.fixture
def deepinv(monkeypatch):
    """A package of that name with the stand-ins."""
    module = types.ModuleType("deepinv.physics")
    module.Physics, module.LinearPhysics = Physics, LinearPhysics
    package = types.ModuleType("deepinv")
    package.physics = module
    monkeypatch.setitem(sys.modules, "deepinv", package)
    monkeypatch.setitem(sys.modules, "deepinv.physics", module)


def test_a_is_a_and_linear_ones_have_their_adjoint():
    operator = from_deepinv(pooling())
    assert isinstance(operator, LinearDeepinvDegradation)
    rows = torch.kron(torch.eye(2), torch.ones(1, 3)).double() / 3
    check_dense(operator.double(), SHAPE, torch.kron(torch.eye(3).double(), torch.kron(rows, rows)))
    check_bits(from_deepinv(pooling()), SHAPE)
    assert not isinstance(from_deepinv(Physics(torch.sin)), LinearDeepinvDegradation)
    assert torch.equal(from_deepinv(Physics(torch.sin))(images()), images().sin())


def test_complex_measurements_have_two_parts():
    operator = from_deepinv(Spectrum()).double()
    x = images().double()
    assert operator.measurement_shape(SHAPE) == (*SHAPE, 2)
    torch.testing.assert_close(torch.view_as_complex(operator(x)), torch.fft.fft2(x) / 6, rtol=0, atol=1e-12)
    torch.testing.assert_close(operator.adjoint(operator(x), SHAPE), x, rtol=0, atol=1e-12)


def test_operators_of_complex_images_are_given_such():
    seen = []
    operator = from_deepinv(Physics(lambda x: seen.append(x.dtype) or torch.fft.fft2(x).abs().square()), complex_images=True)
    assert torch.equal(operator(images()), torch.cat([torch.fft.fft2(x + 0j).abs().square() for x in images().split(1)]))
    assert set(seen) == {torch.complex64}


def test_stacked_operators_measure_one_vector():
    operator = from_deepinv(stacked()).double()
    x = images().double()
    pooled, masked = functional.avg_pool2d(x, 3), x * (torch.arange(6) % 2)
    torch.testing.assert_close(operator(x), torch.cat([pooled.flatten(1), masked.flatten(1)], 1), rtol=0, atol=1e-15)
    assert operator.measurement_shape(SHAPE) == (12 + 108,)


@pytest.mark.parametrize(
    "make", [lambda: pooling(noise_model=GaussianNoise(0.1, rng(9))), lambda: pooling(noise_model=GaussianNoise(0.1)), stacked]
)
def test_measure_takes_all_of_its_randomness_from_its_argument(make):
    operator = from_deepinv(make())
    streams = [part.rng for part in operator.modules() if getattr(part, "rng", None) is not None]
    states = [stream.get_state() for stream in streams]
    with left_alone(operator):
        first = operator.measure(images(), rng(1))
        torch.rand(1, generator=rng(3))
    torch.manual_seed(77)
    assert torch.equal(operator.measure(images(), rng(1)), first)
    assert [part.rng for part in operator.modules() if getattr(part, "rng", None) is not None] == streams
    assert all(torch.equal(stream.get_state(), state) for stream, state in zip(streams, states, strict=True))


@pytest.mark.parametrize("stream", [None, rng(9)])
def test_noise_is_that_of_the_operator_and_new_for_every_image(stream):
    operator = from_deepinv(Physics(noise_model=GaussianNoise(0.2, stream)))
    x = torch.full((40, *SHAPE), 0.5)
    noise = (operator.measure(x, rng(2)) - x).double().flatten(1) / 0.2
    assert abs(float(noise.mean())) <= 5 / math.sqrt(noise.numel())
    assert abs(float(noise.square().mean()) - 1) <= 5 * math.sqrt(2 / noise.numel())
    assert abs(float((noise[1:] * noise[:-1]).mean())) <= 5 / math.sqrt(noise.numel())


def test_sensor_is_part_of_what_is_measured():
    operator = from_deepinv(Physics(sensor_model=lambda y: (4 * y).round() / 4), gap=0.125)
    assert torch.equal(operator.measure(images(), rng()), (4 * images()).round() / 4)
    assert torch.equal(operator(images()), images())


def test_gap_is_that_of_known_noises():
    assert from_deepinv(pooling()).gap == 0
    assert from_deepinv(pooling(noise_model=GaussianNoise(0.2))).gap == pytest.approx(0.25)
    assert from_deepinv(stacked(0.2)).gap == pytest.approx(0.25)
    assert from_deepinv(Physics(noise_model=Photons()), gap=0.3).gap == 0.3
    with pytest.raises(ValueError, match="Physics gap: expected a number, got none for the noise Photons; say how large it is"):
        from_deepinv(Physics(noise_model=Photons()))
    with pytest.raises(ValueError, match="DeepinvDegradation gap: expected a finite number"):
        from_deepinv(Physics(), gap=-1.0)


def test_what_is_no_operator_of_one_image_is_told():
    with pytest.raises(TypeError, match="expected a Physics of deepinv, got Linear"):
        from_deepinv(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="expected A_adjoint, got Physics, which has none; use DeepinvDegradation"):
        LinearDeepinvDegradation(Physics())
    with pytest.raises(ValueError, match=r"expected an operator that takes images of shape \(1, 3, 6, 6\) .* got RuntimeError"):
        from_deepinv(Masking(7)).measurement_shape(SHAPE)
    of_a_batch = from_deepinv(Physics(lambda x: torch.rand(4, 1, 1, 1) * x))
    with pytest.raises(ValueError, match="expected one measurement of one image, got 4"):
        of_a_batch(images())
    with pytest.raises(ValueError, match=r"adjoint: expected y of shape \(N, \*\(3, 2, 2\)\), got \(1, 3, 2, 3\)"):
        from_deepinv(pooling()).adjoint(torch.zeros(1, 3, 2, 3), SHAPE)
    with pytest.raises(ValueError, match=r"adjoint: expected images of shape \(1, 3, 7, 6\), got \(1, 3, 6, 6\)"):
        from_deepinv(pooling()).adjoint(torch.zeros(1, 3, 2, 2), (3, 7, 6))


@pytest.mark.usefixtures("deepinv")
def test_linear_degradation_becomes_a_linear_operator_and_comes_back():
    degradation, x = Downscale(2), images()
    physics = to_deepinv(degradation, SHAPE)
    assert isinstance(physics, LinearPhysics)
    assert physics.img_size == SHAPE
    y = degradation(x)
    assert torch.equal(physics.A(x), y)
    assert torch.equal(physics(x), y)
    assert torch.equal(physics.A_adjoint(y), degradation.adjoint(y, SHAPE))
    back = from_deepinv(physics)
    assert torch.equal(back(x), y)
    assert torch.equal(back.adjoint(y, SHAPE), degradation.adjoint(y, SHAPE))
    physics.noise_model = GaussianNoise(0.1)
    assert 0.05 < float((physics(x) - y).std()) < 0.2


@pytest.mark.usefixtures("deepinv")
def test_other_degradation_becomes_an_operator():
    degradation = CallableDegradation(torch.sin)
    physics = to_deepinv(degradation, SHAPE)
    assert isinstance(physics, Physics)
    assert not isinstance(physics, LinearPhysics)
    assert torch.equal(physics(images()), degradation(images()))


@pytest.mark.usefixtures("deepinv")
@pytest.mark.parametrize("degradation", [SpeckleNoise(0.1), CallableDegradation(torch.sin, bits=8)])
def test_with_a_stream_calls_are_what_really_happens(degradation):
    physics = to_deepinv(degradation, SHAPE, rng(3))
    stream = rng(3)
    for _ in range(2):
        assert torch.equal(physics(images()), degradation.measure(images(), stream))
    assert torch.equal(physics.A(images()), degradation(images()))


@pytest.mark.usefixtures("deepinv")
def test_copy_of_an_operator_has_a_degradation_of_its_own():
    network = nn.Conv2d(3, 2, 3)
    physics = to_deepinv(CallableDegradation(network), SHAPE)
    copied = copy.deepcopy(physics).double()
    assert copied.A(images().double()).dtype == torch.float64
    assert network.weight.dtype == torch.float32


@pytest.mark.usefixtures("deepinv")
def test_degradation_that_cannot_take_the_images_is_told_at_once():
    with pytest.raises(ValueError, match="Downscale: expected images of at least 8 pixels"):
        to_deepinv(Downscale(8), SHAPE)


def test_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(ImportError, match=r"to_deepinv: expected the package deepinv, .* `pip install pulse-latent\[deepinv\]`"):
        to_deepinv(Downscale(2), SHAPE)


class TestContractOfLinearDeepinvDegradation(LinearDegradationContract):
    image_shapes = (SHAPE, (1, 9, 6))

    def make(self):
        return LinearDeepinvDegradation(pooling(noise_model=GaussianNoise(0.1, rng(4))), gap=0.2)  # there are few numbers

    def oracle(self, x):
        return functional.avg_pool2d(x, 3)


class TestContractOfStackedOperators(LinearDegradationContract):
    image_shapes = (SHAPE,)

    def make(self):
        return from_deepinv(stacked(0.1))


class TestContractOfComplexMeasurements(LinearDegradationContract):
    image_shapes = (SHAPE,)

    def make(self):
        return from_deepinv(Spectrum())


class TestContractOfDeepinvDegradation(DegradationContract):
    image_shapes = (SHAPE, (1, 4, 4))

    def make(self):
        return DeepinvDegradation(Physics(lambda x: x**2.2, noise_model=Photons()), gap=0.3)

    def oracle(self, x):
        return x**2.2
