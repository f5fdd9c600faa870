"""Likelihoods against the densities of torch.distributions, values worked by hand, and their derivatives."""

import math

import pytest
import torch
from torch.distributions import Normal, Poisson, StudentT

from pulse_framework.search import Evaluation, GaussianLikelihood, HuberConsistency, PoissonLikelihood, StudentLikelihood


def at(a, y):
    mse = (a - y).square().flatten(1).mean(1)
    return Evaluation(latents={}, priors={}, image=a, degraded=a, measurement=y, mse=mse)


def pair(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 1, 5, 4, dtype=torch.float64, generator=rng).clamp(min=0.05)


def test_gaussian_is_the_density_of_a_normal():
    a, y = pair()
    nll = -(Normal(a, 0.2).log_prob(y) - Normal(y, 0.2).log_prob(y)).flatten(1).mean(1)
    torch.testing.assert_close(GaussianLikelihood(sigma=0.2)(at(a, y)), nll)


def test_poisson_is_the_density_of_counts():
    a, y = pair()
    counts = (40 * y).round()
    counts[0, 0, 0, 0] = 0
    y = counts / 40
    nll = -Poisson(40 * a).log_prob(counts) + Poisson((40 * y).clamp(min=1e-300)).log_prob(counts)
    torch.testing.assert_close(PoissonLikelihood(peak=40)(at(a, y)), nll.flatten(1).mean(1))


def test_poisson_with_noise_of_reading_is_of_shifted_numbers():
    a, y = pair()
    shift = 40 * 0.1**2
    shifted = PoissonLikelihood(peak=40)(at(a + shift, y + shift))
    torch.testing.assert_close(PoissonLikelihood(peak=40, sigma=0.1)(at(a, y)), shifted)


def test_poisson_is_near_the_gaussian_of_its_variance():
    """At many photons (a - y)^2 P / 2 y."""
    y = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    value = PoissonLikelihood(peak=1e4)(at(y + 0.001, y))
    torch.testing.assert_close(value, torch.tensor([0.001**2 * 1e4 / (2 * 0.5)], dtype=torch.float64), rtol=2e-3, atol=0)


def test_poisson_goes_on_below_the_floor():
    """The same value, slope and curvature at the floor from both sides; below, the pull is upward and finite."""
    term, y = PoissonLikelihood(peak=10, floor=0.1), torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)

    def derivatives(a):
        a = torch.full_like(y, a).requires_grad_()
        value = term(at(a, y)).sum()
        (slope,) = torch.autograd.grad(value, a, create_graph=True)
        return [value.item(), slope.item(), float(torch.autograd.grad(slope.sum(), a)[0])]

    assert derivatives(0.1 - 1e-9) == pytest.approx(derivatives(0.1 + 1e-9), rel=1e-6)
    for a in (0.0, -0.5):  # 10 (1 - 0.3 (1 - (a / 0.1 - 1)) / 0.1)
        assert derivatives(a)[1] == pytest.approx(10 * (1 - 3 * (2 - a / 0.1)))


def test_huber_by_hand():
    y = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    a = torch.tensor([0.05, -0.1, 0.6], dtype=torch.float64).reshape(1, 1, 1, 3)
    expected = (0.05**2 + 0.1**2 + 0.1 * (1.2 - 0.1)) / 3
    torch.testing.assert_close(HuberConsistency(delta=0.1)(at(a, y)), torch.tensor([expected], dtype=torch.float64))
    torch.testing.assert_close(HuberConsistency(delta=9.0)(at(a, y)), at(a, y).mse)


def test_student_is_the_density_of_t():
    a, y = pair()
    t = StudentT(3.0, a, 0.1)
    nll = StudentT(3.0, y, 0.1).log_prob(y) - t.log_prob(y)
    torch.testing.assert_close(StudentLikelihood(scale=0.1, freedom=3.0)(at(a, y)), nll.flatten(1).mean(1))


TERMS = [
    GaussianLikelihood(sigma=0.1),
    PoissonLikelihood(peak=30, sigma=0.05),
    HuberConsistency(),
    StudentLikelihood(scale=0.1),
]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_least_and_flat_at_the_measurement_and_each_item_its_own(term):
    a, y = pair()
    value = term(at(a, y))
    assert value.shape == (3,)
    assert bool((value > 0).all())
    for i in range(3):
        torch.testing.assert_close(term(at(a[i : i + 1], y[i : i + 1])), value[i : i + 1])
    leaf = y.clone().requires_grad_()
    least = term(at(leaf, y))
    torch.testing.assert_close(least, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(least.sum(), leaf)[0], torch.zeros_like(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_gradient_is_true(term):
    a, y = pair()
    assert torch.autograd.gradcheck(lambda a: term(at(a, y)), a.requires_grad_())


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (GaussianLikelihood, {"sigma": 0.0}),
        (PoissonLikelihood, {"peak": -1.0}),
        (PoissonLikelihood, {"peak": 1.0, "sigma": math.nan}),
        (PoissonLikelihood, {"peak": 1.0, "floor": 0.0}),
        (HuberConsistency, {"delta": math.inf}),
        (StudentLikelihood, {"scale": 0.0}),
        (StudentLikelihood, {"scale": 1.0, "freedom": -1.0}),
    ],
)
def test_what_is_not_positive_is_refused(make, settings):
    with pytest.raises(ValueError, match=f"{make.__name__} .*: expected a finite number above 0, got"):
        make(**settings)
