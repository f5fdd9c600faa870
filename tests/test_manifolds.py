"""Manifolds against their laws and known points."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pulse_framework.manifolds import Euclidean, Sphere
from pulse_framework.testing import ManifoldContract


class TestEuclidean(ManifoldContract):
    def make(self):
        return Euclidean()

    def oracle(self, x, y):
        return ((x - y) ** 2).sum(-1).sqrt()


class TestEuclideanMaps(TestEuclidean):
    shape = (3, 4, 4)
    ndim = 2

    def make(self):
        return Euclidean(ndim=2)

    def oracle(self, x, y):
        return ((x - y) ** 2).sum((-1, -2)).sqrt()


class TestSphere(ManifoldContract):
    radius = math.sqrt(8)

    def make(self):
        return Sphere()

    def oracle(self, x, y):
        axes = tuple(range(-self.ndim, 0))
        return self.radius * torch.acos((x * y).sum(axes) / self.radius**2)

    def far(self, x, gap):
        other = x.flatten(-self.ndim)
        v = torch.zeros_like(other)
        v[..., 0], v[..., 1] = -other[..., 1], other[..., 0]
        v = v / v.norm(dim=-1, keepdim=True) * self.radius
        y = -math.cos(gap / self.radius) * other + math.sin(gap / self.radius) * v
        return y.reshape(x.shape), torch.full(self._count(x), math.pi * self.radius - gap, dtype=x.dtype)

    def residual(self, x, start):
        return (self._length(x) - self.radius).abs()


class TestSphereOfALength(TestSphere):
    radius = 2.5

    def make(self):
        return Sphere(2.5)


class TestSphereOfMaps(TestSphere):
    radius = 4.0
    shape = (3, 4, 4)
    ndim = 2

    def make(self):
        return Sphere(ndim=2)


class TestSphereOfCentredMaps(TestSphereOfMaps):
    def make(self):
        return Sphere(ndim=2, centred=True)


def test_centred_maps_have_mean_zero_and_mean_square_one_wherever_they_go():
    sphere = Sphere(ndim=2, centred=True)
    x, v = torch.randn(2, 3, 1, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    x = sphere.project(x)
    for point in (x, sphere.retract(x, v), sphere.geodesic(x, sphere.project(v), 0.3)):
        assert float(point.mean((2, 3)).abs().max()) < 1e-12
        torch.testing.assert_close(point.square().mean((2, 3)), torch.ones(3, 1, dtype=torch.float64))
    assert float(sphere.tangent(x, v).mean((2, 3)).abs().max()) < 1e-12


class TestSphereOfTheInitialRadius(TestSphere):
    radius = 1.7

    def make(self):
        return Sphere("initial")

    def points(self, seed=0):
        x = self._vectors(seed)
        return 1.7 * x / x.norm(dim=-1, keepdim=True)

    def residual(self, x, start):
        return (self._length(x) - self._length(start)).abs()


def test_initial_radius_goes_linearly_along_a_geodesic():
    x, y = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    middle = Sphere("initial").geodesic(x, y, 0.5)
    torch.testing.assert_close(middle, torch.full((1, 2), 3 / math.sqrt(2)))


def test_opposite_points_have_no_shortest_way():
    x = torch.tensor([[1.0, 2.0, 2.0]])
    with pytest.raises(ValueError, match="opposite"):
        Sphere(3.0).geodesic(x, -x, 0.5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("radius", ["sqrt", 0.0, -1.0, math.inf, math.nan])
def test_radius_is_checked(radius):
    with pytest.raises(ValueError, match="Sphere radius"):
        Sphere(radius)


@given(st.floats(1e-6, math.pi - 1e-6), st.floats(0.1, 100.0))
def test_distance_is_the_angle_times_the_radius(angle, radius):
    x = torch.tensor([radius, 0.0], dtype=torch.float64)
    y = radius * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert float(Sphere(radius).distance(x, y)) == pytest.approx(angle * radius, rel=1e-9)
