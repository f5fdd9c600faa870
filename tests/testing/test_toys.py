"""The toy worlds obey the laws: what the suites accept."""

from dataclasses import replace
from types import MappingProxyType

import torch

from pulse_framework.priors import FlatPrior, GaussianPrior
from pulse_framework.search import SGD, Adam, L2Consistency, Objective, Phase, PriorEnergy, StopRule
from pulse_framework.testing import DegradationContract, EngineContract, GeneratorContract, LinearDegradationContract
from pulse_framework.testing.toys import ConvToy, GainToy, LabelToy, LinearToy, LinearWorld, PoolToy, StyleToy


class TestLinearToy(GeneratorContract):
    def make(self):
        return LinearToy()

    def oracle(self, latents):
        return torch.einsum("chwd,nd->nchw", LinearToy().weight.detach().double(), latents["z"]) + 0.5


class TestStyleToy(GeneratorContract):
    lifts = (("w", "w_plus"), ("w", "features"), ("w_plus", "features"))

    def make(self):
        return StyleToy()


class TestLabelToy(GeneratorContract):
    def make(self):
        return LabelToy()


class TestConvToy(GeneratorContract):
    def make(self):
        return ConvToy()


class TestPoolToy(LinearDegradationContract):
    image_shapes = ((3, 16, 16), (1, 4, 6))
    keeps_constants = True

    def make(self):
        return PoolToy()

    def oracle(self, x):
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


class TestGainToy(DegradationContract):
    bounds = MappingProxyType({"gain": (0.0, 2.0)})

    def make(self):
        return GainToy()


def phase(**changes):
    settings = Phase(
        prior=FlatPrior(), objective=Objective({"data": L2Consistency()}), optimiser=SGD(rate=0.15), stop=StopRule(steps=80)
    )
    return replace(settings, **changes)


class TestDescentWithMomentum(EngineContract):
    def make_phase(self):
        return phase(optimiser=SGD(rate=0.1, momentum=0.4))


class TestAdam(EngineContract):
    def make_phase(self):
        return phase(optimiser=Adam(rate=0.3), schedule=lambda fraction: 1 - fraction, stop=StopRule(steps=300))


class TestMaximumAPosteriori(EngineContract):
    def make_phase(self):
        objective = Objective({"data": L2Consistency(), "prior": PriorEnergy(weight=0.3)})
        return phase(prior=GaussianPrior(), objective=objective)

    def optimum(self, world, measurement):
        return world.optimum(measurement, energy=0.3)


class TestTargetOnTheWay(EngineContract):
    def make_phase(self):
        return phase(stop=StopRule(steps=80, target_mse=0.3, at_target=False))


def test_known_optimum_has_no_gradient():
    world = LinearWorld.make()
    for energy in (0.0, 0.3):
        y = world.measurements(1)[0][1]
        z = world.optimum(y, energy)[None].requires_grad_()
        error = (world.degradation(world.generator({"z": z}))[0] - y).square().mean() + energy * z.square().sum() / 2
        (gradient,) = torch.autograd.grad(error, z)
        torch.testing.assert_close(gradient, torch.zeros_like(z), rtol=0, atol=1e-12)
        assert error > 1e-3
