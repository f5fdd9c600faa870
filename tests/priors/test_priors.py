"""Priors against their laws."""

import pytest
import torch

from pulse_framework.manifolds import Euclidean, Sphere
from pulse_framework.priors import FlatPrior, GaussianPrior, SpherePrior
from pulse_framework.testing import PriorContract


class TestGaussian(PriorContract):
    def make(self):
        return GaussianPrior()

    def oracle(self, latent):
        return -torch.distributions.Normal(0.0, 1.0).log_prob(latent).flatten(1).sum(1)


class TestGaussianOfRows(TestGaussian):
    shape = (2, 6)


class TestFlat(PriorContract):
    def make(self):
        return FlatPrior()

    def oracle(self, latent):
        return torch.zeros(len(latent), dtype=latent.dtype)


class TestSphere(TestFlat):
    def make(self):
        return SpherePrior()


class TestSphereOfALength(TestFlat):
    second_moment = 9.0 / 16

    def make(self):
        return SpherePrior(3.0)


class TestSphereOfTheInitialRadius(TestFlat):
    def make(self):
        return SpherePrior("initial")


class TestSphereOfMaps(TestFlat):
    shape = (1, 4, 4)

    def make(self):
        return SpherePrior(ndim=2)


class TestSphereOfCentredMaps(TestSphereOfMaps):
    covariance = -1 / 15  # sixteen entries that add up to 0

    def make(self):
        return SpherePrior(ndim=2, centred=True)


def test_priors_name_their_manifold():
    assert GaussianPrior().manifold == FlatPrior().manifold == Euclidean()
    assert SpherePrior(3.0, ndim=2).manifold == Sphere(3.0, ndim=2)


def test_flat_starts_have_a_mean_and_a_spread():
    plain = FlatPrior().sample((3,), torch.Generator().manual_seed(0))
    moved = FlatPrior(2.0, 0.5).sample((3,), torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved, 2 + plain / 2)
    assert FlatPrior(0.25, 0.0).sample((2,), torch.Generator()).tolist() == [0.25, 0.25]
    with pytest.raises(ValueError, match=r"FlatPrior std: expected at least 0, got -1"):
        FlatPrior(std=-1.0)
