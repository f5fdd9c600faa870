"""L-BFGS: torch.optim's where the rules coincide, closed forms, spheres, kinks, float32, and rows that never meet."""

from dataclasses import replace

import pytest
import torch

from degradations.downscale import Downscale
from pulse_framework.manifolds import Euclidean, Sphere
from pulse_framework.priors import FlatPrior, GaussianPrior, SpherePrior
from pulse_framework.search import (
    LBFGS,
    Engine,
    Iterate,
    L1Consistency,
    L2Consistency,
    Objective,
    Phase,
    PriorEnergy,
    Search,
    StopRule,
)
from pulse_framework.testing import EngineContract
from pulse_framework.testing.checks import rng
from pulse_framework.testing.toys import ConvToy, LinearWorld, StyleToy

DATA = Objective({"data": L2Consistency(weight=3.0)})
WORLD = LinearWorld.make()
NO_NOISE = (torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))  # keys and numbers, which it has no use for
PHASE = Phase(prior=FlatPrior(), objective=DATA, optimiser=LBFGS(), stop=StopRule(steps=25))


class TestContract(EngineContract):
    """The engine's laws under L-BFGS."""

    def make_phase(self) -> Phase:
        """Flat space; three numbers need no more memory."""
        return replace(PHASE, optimiser=LBFGS(memory=3), stop=StopRule(steps=20))


def one(phase, world=WORLD, seed=0):
    key, y = world.measurements(1, seed)[0]
    (result,) = Engine(world.generator, world.degradation, [phase]).run([Search(key, y, seed=seed)])
    return result, y


def valley(x):
    """A bent valley in every row: Rosenbrock's function, not as steep."""
    return (1 - x[:, ::2]).square().sum(1) + 5 * (x[:, 1::2] - x[:, ::2].square()).square().sum(1)


def creased(x):
    """Kinks along lines, least at 0."""
    return x[:, 0].abs() + 3 * (x[:, 1:] - x[:, :1] / 2).abs().sum(1)


def run(optimiser, function, x, steps, manifold=None):
    """Iterates and their values; every row begins at the same time."""
    manifold, found = manifold or Euclidean(), []
    state = optimiser.begin({"z": x}, x)
    for _ in range(steps):
        leaf = x.detach().requires_grad_()
        value = function(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        found.append((x, value.detach()))
        at = Iterate(
            latents={"z": x},
            gradients={"z": gradient},
            manifolds={"z": manifold},
            objective=value.detach(),
            live=torch.ones(len(x), dtype=torch.bool),
            coefficients=torch.full((1, len(x)), optimiser.rate, dtype=x.dtype),
            weight=0.0,
            measured=lambda latents: latents["z"],
            keys=NO_NOISE[0],
            numbers=NO_NOISE[1],
        )
        moved, state = optimiser.move(at, state)
        x = moved["z"]
    return found


@pytest.mark.parametrize("memory", [3, 10])
def test_equals_torch_where_every_first_trial_is_taken(memory):
    """Down a quadratic bowl, from where torch's first step is long enough."""
    scales = torch.linspace(1, 2, 6, dtype=torch.float64)

    def bowl(x):
        return (scales * x.square()).sum(1) / 2

    start = 0.3 * torch.randn(1, 6, generator=rng(0), dtype=torch.float64)
    leaf, reference = start.clone().requires_grad_(), []
    theirs = torch.optim.LBFGS([leaf], lr=1.0, max_iter=1, history_size=memory, tolerance_grad=0, tolerance_change=0)

    def closure():
        theirs.zero_grad()
        value = bowl(leaf).sum()
        value.backward()
        return value

    for _ in range(9):
        reference.append(leaf.detach().clone())
        theirs.step(closure)
    ours = run(LBFGS(memory=memory), bowl, start, 9)
    for (got, _), expected in zip(ours, reference, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    assert float(reference[-1].norm()) < 1e-3 * float(start.norm())


@pytest.mark.parametrize(("function", "least"), [(valley, 1.0), (creased, 0.0)], ids=["valley", "kinks"])
def test_finds_the_bottom_from_everywhere(function, least):
    """Of a bent valley, and of a function with kinks, where there is no derivative at the bottom."""
    start = 2 * torch.randn(8, 4, generator=rng(1), dtype=torch.float64)
    best = torch.stack([value for _, value in run(LBFGS(), function, start, 150)]).min(0)
    torch.testing.assert_close(best.values, torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-8 if least else 1e-3)


def test_takes_only_what_meets_both_conditions():
    """The points that are taken go down, each with less slope along its direction; trials between may go up."""
    start = 2 * torch.randn(1, 4, generator=rng(4), dtype=torch.float64)
    optimiser, x = LBFGS(), start
    state, taken, rises = optimiser.begin({"z": x}, x), [], 0
    for x, value in run(optimiser, valley, start, 60):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(valley(leaf).sum(), leaf)
        before = state
        rate = torch.ones(1, 1, dtype=torch.float64)
        at = Iterate({"z": x}, {"z": gradient}, {"z": Euclidean()}, value, value > 0, rate, 0.0, len, *NO_NOISE)
        _, state = optimiser.move(at, state)
        if float(state["trial"]):
            rises += float(value) > float(before["objective"])
            continue
        if taken:
            slope, length = float(before["slope"]), float(before["length"])
            assert float(value) <= taken[-1] + 1e-4 * length * slope
            assert float((gradient * before["direction"]).sum()) >= 0.9 * slope
        taken.append(float(value))
    assert len(taken) > 10
    assert rises > 0


def test_a_row_is_the_same_bit_for_bit_among_others():
    """Whatever the others do, at any width that a batch may have."""
    start = 2 * torch.randn(8, 4, generator=rng(2))
    together = run(LBFGS(), valley, start, 30)
    for row in (0, 3, 7):
        for (got, value), (x, one_value) in zip(together, run(LBFGS(), valley, start[row : row + 1], 30), strict=True):
            assert torch.equal(got[row], x[0])
            assert torch.equal(value[row], one_value[0])


def test_searches_are_the_same_bit_for_bit_in_any_company():
    """In float32, through the slots, with convolutions."""
    generator, operator = ConvToy(), Downscale(4)
    phase = replace(PHASE, prior=SpherePrior(), stop=StopRule(steps=25))
    ys = operator(generator({"z": torch.randn(5, 8, generator=rng(3))})).detach()
    searches = [Search(f"image {index}", y, index=index) for index, y in enumerate(ys)]
    alone = [next(Engine(generator, operator, [phase], slots=1).run([search])) for search in searches]
    for together in Engine(generator, operator, [phase], slots=4).run(searches[::-1]):
        assert torch.equal(together.trace, alone[together.index].trace)
        assert torch.equal(together.latents["z"], alone[together.index].latents["z"])


def test_a_linear_world_takes_few_steps():
    """Three numbers: an exact line search would need three directions; gradient descent needs hundreds."""
    result, y = one(replace(PHASE, stop=StopRule(steps=20)))
    torch.testing.assert_close(result.latents["z"], WORLD.optimum(y), rtol=0, atol=1e-7)


def test_prior_energy_moves_the_optimum():
    objective = Objective({"data": L2Consistency(), "prior": PriorEnergy(weight=0.3)})
    result, y = one(replace(PHASE, prior=GaussianPrior(), objective=objective))
    torch.testing.assert_close(result.latents["z"], WORLD.optimum(y, 0.3), rtol=0, atol=1e-6)


def test_any_objective_will_do():
    """Also without squares, of which Levenberg-Marquardt could make nothing."""
    phase = replace(PHASE, objective=Objective({"data": L1Consistency()}), stop=StopRule(steps=80))
    result, _ = one(phase)
    longer, _ = one(replace(phase, stop=StopRule(steps=200)))
    assert result.objective < float(result.trace[0, 0]) / 2
    assert result.objective == pytest.approx(longer.objective, rel=2e-3)


def test_on_a_sphere_it_reaches_the_constrained_optimum():
    """The lowest point of a linear function is opposite its gradient; pairs stay tangent on the way."""
    sphere = Sphere(2.0)
    down = torch.tensor([1.0, -2.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    start = sphere.project(torch.randn(6, 5, generator=rng(1), dtype=torch.float64))
    found = run(LBFGS(), lambda x: x @ down, start, 40, sphere)
    torch.testing.assert_close(found[-1][0], (-2 * down / down.norm()).expand(6, 5), rtol=0, atol=1e-6)


def test_blocks_move_together_on_their_own_manifolds():
    """Two rows of a style and a noise map: the gradient at the end is normal to all of their spheres."""
    world = LinearWorld(StyleToy().double(), WORLD.degradation)
    priors = {"w_plus": SpherePrior(1.5), "noise": SpherePrior(ndim=2)}
    world = replace(world, degradation=Downscale(2))
    result, y = one(replace(PHASE, prior=priors, stop=StopRule(steps=200)), world)
    leaves = {name: value[None].clone().requires_grad_(name in priors) for name, value in result.latents.items()}
    error = (world.degradation(world.generator(leaves)) - y).square().mean()
    slopes = torch.autograd.grad(error, [leaves[name] for name in priors])
    first = float(result.trace[0, 1])
    for name, slope in zip(priors, slopes, strict=True):
        manifold, x = priors[name].manifold, leaves[name].detach()
        torch.testing.assert_close(manifold.project(x), x, rtol=1e-9, atol=1e-9)
        assert float(manifold.tangent(x, slope).norm()) < 1e-5 * first**0.5


def test_a_convolutional_search_passes_45_db_in_float32():
    """And goes far beyond, on the sphere."""
    generator, prior, operator = ConvToy(), SpherePrior(radius="sqrt_dim"), Downscale(4)
    truth = prior.manifold.project(torch.randn(1, 8, generator=rng(5)))
    start = prior.manifold.project(truth + 0.5 * torch.randn(1, 8, generator=rng(6)))
    y = operator(generator({"z": truth}))[0].detach()
    phase = replace(PHASE, prior=prior, stop=StopRule(steps=400, target_db=90.0))
    (result,) = Engine(generator, operator, [phase]).run([Search("y", y, start={"z": start[0]})])
    assert float(result.trace[0, 1]) > 10**-5.5
    assert result.psnr_db > 90
    assert float(result.latents["z"].norm()) == pytest.approx(8**0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 0}, "memory and trials: expected at least 1"),
        ({"trials": 0}, "memory and trials: expected at least 1"),
        ({"decrease": 0.95}, "expected 0 < decrease < curvature < 1"),
        ({"curvature": 1.0}, "expected 0 < decrease < curvature < 1"),
        ({"rate": 0.0}, "LBFGS rate: expected a positive number"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        LBFGS(**change)
