"""Priors against their laws."""

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


def test_priors_name_their_manifold():
    assert GaussianPrior().manifold == FlatPrior().manifold == Euclidean()
    assert SpherePrior(3.0, ndim=2).manifold == Sphere(3.0, ndim=2)
