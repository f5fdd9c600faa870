"""The fitted Gaussian against its laws, against ``torch.distributions``, and against moments known in advance."""

import pytest
import torch

from pulse_framework.priors import GaussianPrior, MahalanobisPrior
from pulse_framework.testing import PriorContract
from pulse_framework.testing.checks import rng

VARIANCE, SHARED = 2.0, 1.2


def covariance():
    """Entries i and i + 4 of 8 go together; neighbours do not."""
    eye = torch.eye(8, dtype=torch.float64)
    return VARIANCE * eye + SHARED * eye.roll(4, 1)


def skewed(size=5):
    factor = torch.randn(size, size, generator=rng(4), dtype=torch.float64)
    return torch.randn(size, generator=rng(5), dtype=torch.float64), factor @ factor.T + 0.1 * torch.eye(size).double()


class TestMahalanobis(PriorContract):
    shape = (8,)
    mean = 0.5
    second_moment = 0.25 + VARIANCE

    def make(self):
        return MahalanobisPrior(torch.full((8,), 0.5), covariance())

    def oracle(self, latent):
        normal = torch.distributions.MultivariateNormal(torch.full((8,), 0.5, dtype=latent.dtype), covariance())
        return -normal.log_prob(latent.reshape(len(latent), -1, 8)).sum(1)


class TestMahalanobisOfRows(TestMahalanobis):
    shape = (3, 8)


class TestMahalanobisOfComponents(TestMahalanobis):
    def make(self):
        variances, columns = torch.linalg.eigh(covariance())
        return MahalanobisPrior(torch.full((8,), 0.5), (columns.T, variances))


class TestMahalanobisOfTheIdentity(PriorContract):
    def make(self):
        return MahalanobisPrior(torch.zeros(16), torch.eye(16))

    def oracle(self, latent):
        return GaussianPrior().energy(latent)


def test_energy_worked_by_hand():
    """C = [[2, 1], [1, 2]] has the inverse [[2, -1], [-1, 2]] / 3; x - mu = (1, 2) gives (2 - 4 + 8) / 3 / 2."""
    prior = MahalanobisPrior(torch.tensor([3.0, -1.0]), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    x = torch.tensor([[[4.0, 1.0], [3.0, -1.0]], [[4.0, 1.0], [4.0, 1.0]]], dtype=torch.float64)
    torch.testing.assert_close(prior.energy(x), torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_covariance_and_its_components_are_one_prior():
    mean, c = skewed()
    variances, columns = torch.linalg.eigh(c)
    x = torch.randn(4, 3, 5, generator=rng(), dtype=torch.float64)
    torch.testing.assert_close(
        MahalanobisPrior(mean, c).energy(x), MahalanobisPrior(mean, (columns.T, variances)).energy(x), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("components", [False, True])
def test_samples_have_the_mean_and_the_covariance(components):
    """Within five standard errors; that of entry (i, j) of the covariance is the root of (C_ii C_jj + C_ij^2) / n."""
    mean, c = skewed()
    variances, columns = torch.linalg.eigh(c)
    prior = MahalanobisPrior(mean, (columns.T, variances) if components else c)
    x, count = prior.sample((20_000, 5), rng()).double(), 20_000
    assert bool(((x.mean(0) - mean).abs() < 5 * (c.diagonal() / count).sqrt()).all())
    bound = 5 * ((torch.outer(c.diagonal(), c.diagonal()) + c.square()) / count).sqrt()
    assert bool(((torch.cov(x.T) - c).abs() < bound).all())


def test_fewer_components_than_entries():
    mean, u = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[0.6, 0.8, 0.0]])
    prior = MahalanobisPrior(mean, (u, torch.tensor([4.0])))
    off = prior.sample((100, 3), rng()) - mean
    torch.testing.assert_close(off, (off @ u.T) @ u, rtol=0, atol=1e-6)
    along, across = mean + 2 * u, mean + torch.tensor([[0.8, -0.6, 5.0]])
    torch.testing.assert_close(prior.energy(torch.cat([along, across])), torch.tensor([0.5, 0.0]))


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_fit_is_the_sample_covariance_whatever_the_chunks(chunk):
    """Far from the origin, in float32, where sums of squares would lose everything."""
    mean, c = skewed()
    samples = 1e4 + MahalanobisPrior(mean, c).sample((1000, 5), rng())
    exact = samples.double()
    wanted = MahalanobisPrior(exact.mean(0), torch.cov(exact.T))
    for prior in (MahalanobisPrior.from_samples(samples.split(chunk)), MahalanobisPrior.from_samples(samples)):
        torch.testing.assert_close(prior.mean, exact.mean(0), rtol=1e-14, atol=0)
        torch.testing.assert_close(prior.colour, wanted.colour, rtol=1e-9, atol=1e-9)
        whitened = (exact - prior.mean) @ prior.whiten
        torch.testing.assert_close(torch.cov(whitened.T), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-9)


def test_autocast_leaves_the_energy_alone():
    mean, c = skewed()
    prior, x = MahalanobisPrior(mean, c), torch.randn(4, 5, generator=rng())
    with torch.autocast("cpu", torch.bfloat16):
        energy = prior.energy(x)
    assert torch.equal(energy, prior.energy(x))


def test_state_dict_carries_it():
    mean, c = skewed()
    prior, other = MahalanobisPrior(mean, c), MahalanobisPrior(torch.zeros(5), torch.eye(5))
    other.load_state_dict(prior.state_dict())
    x = torch.randn(4, 5, generator=rng())
    assert torch.equal(other.energy(x), prior.energy(x))


EYE = torch.eye(3)
WRONG = [
    (torch.zeros(1, 3), EYE, "mean: expected a vector"),
    (torch.tensor([0.0, torch.nan, 0.0]), EYE, "mean: expected a vector of finite"),
    (torch.zeros(3), torch.eye(2), r"covariance: expected shape \(3, 3\), got \(2, 2\)"),
    (torch.zeros(3), EYE + EYE.roll(1, 1), "symmetric"),
    (torch.zeros(3), EYE * torch.nan, "symmetric matrix of finite"),
    (torch.zeros(3), torch.ones(3, 3), "positive definite"),
    (torch.zeros(3), (EYE[:2], torch.ones(3)), r"components: expected shape \(K, 3\)"),
    (torch.zeros(3), (EYE[:0], torch.ones(0)), r"components: expected shape \(K, 3\)"),
    (torch.zeros(3), (EYE[:2], torch.tensor([1.0, 0.0])), "variances: expected positive"),
    (torch.zeros(3), (2 * EYE[:2], torch.ones(2)), "orthonormal rows"),
]


@pytest.mark.parametrize(("mean", "spread", "match"), WRONG)
def test_mistakes_are_refused(mean, spread, match, unchecked):
    with pytest.raises(ValueError, match=match):
        MahalanobisPrior(mean, spread)


def test_fits_that_cannot_be_made_are_refused(unchecked):
    with pytest.raises(ValueError, match="expected more than the 3 entries of each, got 3"):
        MahalanobisPrior.from_samples(torch.randn(3, 3, generator=rng()))
    with pytest.raises(ValueError, match="expected at least 2, got 0"):
        MahalanobisPrior.from_samples([])
    with pytest.raises(ValueError, match=r"expected shape \(count, D\), one D, got \(2, 4\)"):
        MahalanobisPrior.from_samples([torch.ones(2, 3), torch.ones(2, 4)])


def test_shape_of_another_block_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \(..., 3\), got \(2, 4\)"):
        MahalanobisPrior(torch.zeros(3), EYE).sample((2, 4), rng())
