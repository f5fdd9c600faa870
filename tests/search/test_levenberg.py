"""Levenberg-Marquardt: closed forms, derivatives both ways, spheres, and what it refuses."""

import warnings
from dataclasses import replace

import pytest
import torch

from degradations.downscale import Downscale
from pulse_framework.priors import FlatPrior, GaussianPrior, SpherePrior
from pulse_framework.search import (
    Engine,
    L1Consistency,
    L2Consistency,
    LevenbergMarquardt,
    Objective,
    Phase,
    PriorEnergy,
    Search,
    StopRule,
)
from pulse_framework.search.levenberg import _forward, _has_forward, _reverse, _solve
from pulse_framework.testing import EngineContract
from pulse_framework.testing.checks import rng
from pulse_framework.testing.toys import ConvToy, LinearToy, LinearWorld, StyleToy

DATA = Objective({"data": L2Consistency(weight=3.0)})
WORLD = LinearWorld.make()
PHASE = Phase(prior=FlatPrior(), objective=DATA, optimiser=LevenbergMarquardt(), stop=StopRule(steps=40))


class TestContract(EngineContract):
    """The engine's laws under Levenberg-Marquardt."""

    def make_phase(self) -> Phase:
        """Flat space."""
        return PHASE


def one(phase, world=WORLD, seed=0):
    key, y = world.measurements(1, seed)[0]
    (result,) = Engine(world.generator, world.degradation, [phase]).run([Search(key, y, seed=seed)])
    return result, y


def test_a_linear_world_takes_one_undamped_step():
    phase = replace(PHASE, optimiser=LevenbergMarquardt(damping=1e-9), stop=StopRule(steps=2))
    result, y = one(phase)
    torch.testing.assert_close(result.latents["z"], WORLD.optimum(y), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_modes_agree(mode):
    auto, _ = one(replace(PHASE, stop=StopRule(steps=4)))
    other, _ = one(replace(PHASE, optimiser=LevenbergMarquardt(mode=mode), stop=StopRule(steps=4)))
    torch.testing.assert_close(other.latents["z"], auto.latents["z"], rtol=1e-9, atol=1e-9)


def test_prior_energy_moves_the_optimum():
    objective = Objective({"data": L2Consistency(), "prior": PriorEnergy(weight=0.3)})
    result, y = one(Phase(prior=GaussianPrior(), objective=objective, optimiser=LevenbergMarquardt(), stop=StopRule(steps=200)))
    torch.testing.assert_close(result.latents["z"], WORLD.optimum(y, 0.3), rtol=0, atol=1e-6)


def test_on_a_sphere_it_reaches_the_constrained_optimum():
    """There the gradient of the consistency is normal to the sphere, from every start."""
    phase = replace(PHASE, prior=SpherePrior(radius="sqrt_dim"), stop=StopRule(steps=150))
    key, y = WORLD.measurements(1)[0]
    for result in Engine(WORLD.generator, WORLD.degradation, [phase]).run(Search(key, y, start) for start in range(4)):
        z = result.latents["z"].clone().requires_grad_()
        error = (WORLD.degradation(WORLD.generator({"z": z[None]})) - y).square().mean()
        (slope,) = torch.autograd.grad(error, z)
        z = z.detach()
        tangent = slope - (slope @ z) / (z @ z) * z
        assert float(z.norm()) == pytest.approx(3**0.5, rel=1e-6)
        assert float(tangent.norm()) < 1e-4 * float(slope.norm())


def test_derivatives_forwards_and_backwards_are_those_of_autograd():
    generator, operator = StyleToy().double(), Downscale(2)
    latents = {
        name: torch.randn(1, *block.shape, generator=rng(3), dtype=torch.float64)
        for name, block in ((block.name, block) for block in generator.blocks)
        if name in ("w_plus", "noise")
    }

    def measured(given):
        return operator(generator(given))

    moved = {"w_plus": latents["w_plus"], "noise": latents["noise"]}
    expected = torch.autograd.functional.jacobian(
        lambda w, n: measured({"w_plus": w, "noise": n}).flatten(), (latents["w_plus"], latents["noise"])
    )
    expected = torch.cat([part.flatten(1) for part in expected], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert _has_forward(measured, latents, moved)
    torch.testing.assert_close(_forward(measured, latents, moved), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(_reverse(measured, latents, moved), expected, rtol=1e-10, atol=1e-12)


class Backwards(torch.autograd.Function):
    """Knows nothing of forward mode."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


class BackwardsToy(LinearToy):
    """Can be differentiated backwards only, as StyleGAN2's fused layers."""

    def synthesize(self, latents):
        return Backwards.apply(super().synthesize(latents))


def test_a_generator_without_forward_mode_is_searched_backwards():
    world = LinearWorld.make()
    world = replace(world, generator=BackwardsToy(world.generator.weight.detach() / 2, world.generator.bias.detach() / 2))
    result, y = one(PHASE, world)
    torch.testing.assert_close(result.latents["z"], WORLD.optimum(y), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_both_sides_solve_the_same_system(shape):
    jacobian = torch.randn(shape, generator=rng(1), dtype=torch.float64)
    gradient = torch.randn(shape[1], generator=rng(2), dtype=torch.float64)
    damping = torch.tensor(0.2, dtype=torch.float64)
    mu = 0.2 * 1.5 * jacobian.square().sum() / shape[1]
    system = 1.5 * jacobian.T @ jacobian + mu * torch.eye(shape[1], dtype=torch.float64)
    torch.testing.assert_close(system @ _solve(jacobian, gradient, 1.5, damping), -gradient, rtol=1e-9, atol=1e-12)


def test_a_convolutional_search_passes_45_db_in_float32():
    """And goes far beyond, on the sphere: to where the rounding of an image of 8-bit depth would be invisible."""
    generator, prior, operator = ConvToy(), SpherePrior(radius="sqrt_dim"), Downscale(4)
    truth = prior.manifold.project(torch.randn(1, 8, generator=rng(5)))
    start = prior.manifold.project(truth + 0.5 * torch.randn(1, 8, generator=rng(6)))
    y = operator(generator({"z": truth}))[0].detach()
    phase = replace(PHASE, prior=prior, optimiser=LevenbergMarquardt(damping=1.0), stop=StopRule(steps=40, target_db=90.0))
    (result,) = Engine(generator, operator, [phase]).run([Search("y", y, start={"z": start[0]})])
    assert float(result.trace[0, 1]) > 10**-5.5
    assert result.psnr_db > 90
    assert float(result.latents["z"].norm()) == pytest.approx(8**0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"damping": 0.0}, "damping: expected a positive number"),
        ({"up": 1.0}, "up and down: expected factors above 1"),
        ({"rate": -1.0}, "rate: expected a positive number"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        LevenbergMarquardt(**change)


def test_mode_is_checked():
    with pytest.raises((ValueError, TypeError), match="mode"):
        LevenbergMarquardt(mode="sideways")


def test_what_it_cannot_do_is_refused_before_any_work():
    l1 = replace(PHASE, objective=Objective({"data": L1Consistency()}))
    with pytest.raises(ValueError, match="expected an objective with a term L2Consistency"):
        Engine(WORLD.generator, WORLD.degradation, [l1])
    with pytest.raises(ValueError, match="expected a Jacobian of at most"):
        LevenbergMarquardt().check(DATA, 2**13, 2**13)
