"""Row-wise optimisers against torch.optim, and on the sphere."""

import pytest
import torch

from pulse_framework.manifolds import Sphere
from pulse_framework.priors import FlatPrior, SpherePrior
from pulse_framework.search import NGD, SGD, Adam, Adamax, Engine, L2Consistency, Linear1Cycle, Objective, Phase, Search, StopRule
from pulse_framework.testing import EngineContract
from pulse_framework.testing.checks import rng
from pulse_framework.testing.toys import LinearWorld, PoolToy, StyleToy

PAIRS = {
    "sgd": (SGD(rate=0.01), lambda p: torch.optim.SGD(p, lr=0.01)),
    "momentum": (SGD(rate=0.01, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
    "adam": (Adam(rate=0.4), lambda p: torch.optim.Adam(p, lr=0.4)),
    "adam, other betas": (
        Adam(rate=0.1, beta1=0.5, beta2=0.9, eps=1e-3),
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.9), eps=1e-3),
    ),
    "adamax": (Adamax(rate=0.2), lambda p: torch.optim.Adamax(p, lr=0.2)),
    "adamax, other betas": (
        Adamax(rate=0.2, beta1=0.5, beta2=0.9, eps=1e-3),
        lambda p: torch.optim.Adamax(p, lr=0.2, betas=(0.5, 0.9), eps=1e-3),
    ),
}
T = 50
DATA = Objective({"data": L2Consistency()})


def valley(x):
    """Rosenbrock's function of every row."""
    return (1 - x[:, ::2]).square().sum(1) + 5 * (x[:, 1::2] - x[:, ::2].square()).square().sum(1)


def slope(x):
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(valley(leaf).sum(), leaf)
    return gradient


def descend(optimiser, x, ages, rates):
    """Fifty steps of rows that begin at the given step of a common clock; rows before their start stay."""
    table = optimiser.table(rates)
    state = optimiser.start(x)
    for now in range(T + max(ages)):
        number = torch.tensor([min(max(now - age, 0), T - 1) for age in ages])
        kept = {key: value.clone() for key, value in state.items()}
        step = optimiser.step(slope(x), state, table[number].T[:, :, None])
        live = torch.tensor([0 <= now - age < T for age in ages])[:, None]
        x = torch.where(live, x + step, x)
        state = {key: torch.where(live, value, kept[key]) for key, value in state.items()}
    return x


@pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("cycle", [False, True])
def test_equals_torch(ours, theirs, cycle):
    schedule = Linear1Cycle() if cycle else lambda _: 1.0
    start = 0.5 * torch.randn(3, 4, generator=rng(0), dtype=torch.float64)
    leaf = start.clone().requires_grad_()
    reference = theirs([leaf])
    for step in range(T):
        for group in reference.param_groups:
            group["lr"] = ours.rate * schedule(step / T)
        leaf.grad = slope(leaf)
        reference.step()
    rates = torch.tensor([ours.rate * schedule(step / T) for step in range(T)], dtype=torch.float64)
    torch.testing.assert_close(descend(ours, start, [0, 0, 0], rates), leaf.detach(), rtol=1e-10, atol=1e-12)
    assert (leaf.detach() - start).abs().mean() > 0.1


@pytest.mark.parametrize(("optimiser", "_"), PAIRS.values(), ids=PAIRS)
def test_rows_of_different_age_do_not_meet(optimiser, _):
    start = 0.5 * torch.randn(3, 4, generator=rng(0), dtype=torch.float64)
    rates = torch.full((T,), optimiser.rate, dtype=torch.float64)
    together = descend(optimiser, start, [0, 7, 31], rates)
    for row in range(3):
        assert torch.equal(descend(optimiser, start[row : row + 1], [0], rates)[0], together[row])


@pytest.mark.parametrize("optimiser", [SGD(rate=0.1, momentum=0.5, riemannian=True), Adam(rate=0.1, riemannian=True)])
def test_riemannian_descent_finds_the_pole(optimiser):
    """The lowest point of a linear function on a sphere is opposite its gradient."""
    sphere = Sphere(2.0)
    x = sphere.project(torch.randn(4, 5, generator=rng(1), dtype=torch.float64))
    down = torch.tensor([1.0, -2.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    steps = 400
    rates = torch.tensor([optimiser.rate * (1 - step / steps) for step in range(steps)], dtype=torch.float64)
    table, state = optimiser.table(rates), optimiser.start(x)
    for step in range(steps):
        gradient = sphere.tangent(x, down.expand_as(x))
        move = optimiser.step(gradient, state, table[step][:, None, None].expand(-1, 4, 1))
        x = sphere.retract(x, move)
        state |= {key: sphere.tangent(x, state[key]) for key in optimiser.vectors}
        for key in optimiser.vectors:
            torch.testing.assert_close((x * state[key]).sum(1), x.new_zeros(4), rtol=0, atol=1e-10)
    torch.testing.assert_close(x.norm(dim=1), torch.full((4,), 2.0, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(x, (-2 * down / down.norm()).expand_as(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_rate_is_checked(rate):
    with pytest.raises(ValueError, match="Adam rate"):
        Adam(rate=rate)


class TestNGDContract(EngineContract):
    """The engine's laws under normalised gradient descent, whose steps end with the schedule."""

    tolerance = 1e-3

    def make_phase(self) -> Phase:
        """Flat space."""
        steps = StopRule(steps=300)
        return Phase(prior=FlatPrior(), objective=DATA, optimiser=NGD(rate=0.3), stop=steps, schedule=lambda u: (1 - u) ** 4)


def ngd(prior, world, y, *, steps=6, rate=0.08, blocks=None, **settings):
    phase = Phase(prior=prior, objective=DATA, optimiser=NGD(rate=rate, **settings), stop=StopRule(steps=steps), blocks=blocks)
    (result,) = Engine(world.generator, world.degradation, [phase]).run([Search("y", y)])
    return result


def test_ngd_by_hand():
    """One step against the direction of the gradient: z - rate g / |g|."""
    world = LinearWorld.make()
    _, y = world.measurements(1)[0]
    z = ngd(FlatPrior(), world, y, steps=1).latents["z"].clone().requires_grad_()
    (g,) = torch.autograd.grad((world.degradation(world.generator({"z": z[None]})) - y).square().mean(), z)
    second = ngd(FlatPrior(), world, y, steps=2)
    assert second.step == 1
    torch.testing.assert_close(second.latents["z"], z.detach() - 0.08 * g / g.norm(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_ngd_moves_every_vector_by_the_rate(scale):
    """Each row of its own, whatever the size of its gradient; where there is none, not at all."""
    gradient = scale * torch.randn(2, 3, 5, generator=rng(2))
    gradient[1, 2] = 0
    coefficients = torch.tensor([0.08, 0.02])[None, :, None, None]
    step = NGD(rate=1.0).step(gradient, {}, coefficients)
    expected = torch.tensor([[0.08] * 3, [0.02, 0.02, 0.0]])
    torch.testing.assert_close(step.norm(dim=2), expected, rtol=1e-6, atol=0)
    whole = NGD(rate=1.0, ndim=2).step(gradient, {}, coefficients)
    torch.testing.assert_close(whole.flatten(1).norm(dim=1), torch.tensor([0.08, 0.02]), rtol=1e-6, atol=0)
    cosine = torch.nn.functional.cosine_similarity(whole.flatten(1), gradient.flatten(1) / scale)
    torch.testing.assert_close(cosine, -torch.ones(2), rtol=1e-6, atol=0)


def test_ngd_turns_by_the_same_angle_on_a_sphere():
    """The arc tangent of rate over radius, each row of w+ on its own sphere."""
    world = LinearWorld(StyleToy().double(), PoolToy(2))
    y = world.measurements(1)[0][1]
    one, two = (ngd(SpherePrior(2.0), world, y, steps=steps, rate=0.1, blocks=["w_plus"]) for steps in (1, 2))
    assert two.step == 1
    cosine = torch.nn.functional.cosine_similarity(one.latents["w_plus"], two.latents["w_plus"])
    torch.testing.assert_close(cosine.acos().tan(), torch.full((2,), 0.05, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(two.latents["w_plus"].norm(dim=1), torch.full((2,), 2.0).double(), rtol=1e-12, atol=0)


def test_ngd_checks_its_axes():
    with pytest.raises(ValueError, match="NGD ndim: expected at least 1 axis"):
        NGD(rate=0.1, ndim=0)
