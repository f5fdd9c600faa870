"""Row-wise optimisers against torch.optim, and on the sphere."""

import pytest
import torch

from pulse_framework.manifolds import Sphere
from pulse_framework.search import SGD, Adam, Adamax, Linear1Cycle
from pulse_framework.testing.checks import rng

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
