"""Reduced and double precision: what autocast may change, and what it may not."""

from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import FlatPrior
from pulse_framework.search import SGD, Adam, Engine, L2Consistency, Objective, Phase, Search, StopReason, StopRule
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import ConvToy, PoolToy

PHASE = Phase(
    prior=FlatPrior(), objective=Objective({"data": L2Consistency()}), optimiser=Adam(rate=0.05), stop=StopRule(steps=40)
)


def searches(count=5, dtype=torch.float32):
    y = uniform((count, 3, 8, 8), 2, dtype)
    return [Search(str(number), y[number], index=number) for number in range(count)]


def run(phase=PHASE, generator=None, queue=None, **settings):
    engine = Engine(generator or ConvToy(), PoolToy(), [phase], **settings)
    return sorted(engine.run(queue or searches()), key=lambda result: result.index)


def same_bits(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert one.step == other.step
        assert torch.equal(one.trace, other.trace)
        assert torch.equal(one.image, other.image)


@pytest.mark.parametrize("slots", [5, 37])
def test_float64_ignores_slots(slots):
    def double(slots):
        return run(generator=ConvToy().double(), queue=searches(40, torch.float64), slots=slots)

    for got, other in zip(double(slots), double(1), strict=True):
        torch.testing.assert_close(got.image, other.image, rtol=0, atol=1e-8)
        torch.testing.assert_close(got.trace, other.trace, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_reaches_the_generator_and_nothing_else(dtype):
    seen = []

    class Spy(ConvToy):
        def synthesize(self, latents):
            image = super().synthesize(latents)
            seen.append((latents["z"].dtype, self.network(latents["z"][:, :, None, None]).dtype))
            return image

    class SpyPool(PoolToy):
        def forward(self, x):
            seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
            return super().forward(x)

    with torch.autocast("cpu", dtype):
        results = list(Engine(Spy(), SpyPool(), [PHASE]).run(searches()))
    assert set(seen) == {(torch.float32, dtype), (torch.float32, False)}
    for result in results:
        assert result.image.dtype == result.trace.dtype == result.latents["z"].dtype == torch.float32
        assert result.reason is StopReason.BUDGET


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_finds_what_float32_finds(dtype):
    exact = run()
    with torch.autocast("cpu", dtype):
        rough = run()
    for got, other in zip(rough, exact, strict=True):
        start = float(other.trace[0, 0])
        assert start - other.objective > 0.01 * start
        assert start - got.objective > 0.5 * (start - other.objective)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_ignores_slots(dtype):
    with torch.autocast("cpu", dtype):
        same_bits(run(slots=16), run(slots=2))


class Exploding(torch.autograd.Function):
    """Identity whose gradient passes through float16 and overflows above 65504, as in a half-precision network."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.half().to(gradient.dtype)


class HalfGradient(ConvToy):
    """Gradients of its image go through float16."""

    def synthesize(self, latents):
        return Exploding.apply(super().synthesize(latents).float())


def scaled(weight, **changes):
    return replace(PHASE, objective=Objective({"data": L2Consistency(weight=weight)}), **changes)


def test_objective_that_overflows_float16_still_moves():
    """The scale of each row halves until its gradients fit."""
    with torch.autocast("cpu", torch.float16):
        results = run(scaled(1e5), HalfGradient())
    for result in results:
        assert result.reason is StopReason.BUDGET
        stuck = int((result.trace[:, 0] == result.trace[0, 0]).sum())
        assert 1 < stuck < 20
        assert result.objective < float(result.trace[0, 0])


def test_objective_whose_gradients_vanish_in_float16_still_moves():
    """Unscaled, a pixel's gradient of 1e-8 would be zero in float16, and plain descent would stand still."""
    phase = scaled(1e-5, optimiser=SGD(rate=1e5))
    with torch.autocast("cpu", torch.float16):
        rough = run(phase, HalfGradient())
    for got, other in zip(rough, run(phase), strict=True):
        gain = float(other.trace[0, 0]) - other.objective
        assert gain > 0
        assert abs(float(got.trace[0, 0]) - got.objective - gain) < 0.2 * gain


def test_scale_of_one_row_is_its_own():
    """A row whose scale falls by 2^20 and more takes no precision from its neighbour."""
    calm, wild = searches(2)
    wild = replace(wild, measurement=wild.measurement * 3e10)
    with torch.autocast("cpu", torch.float16):
        alone = run(scaled(1.0), HalfGradient(), [calm])
        together = run(scaled(1.0), HalfGradient(), [calm, wild])
    same_bits(together[:1], alone)
    assert together[0].trace[1, 0] != together[0].trace[0, 0]
