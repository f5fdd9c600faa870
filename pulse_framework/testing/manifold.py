"""The laws of a manifold. A manifold's test subclasses ``ManifoldContract`` and supplies ``make``."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from pulse_framework.manifolds import Manifold
from pulse_framework.testing.checks import close, equal, rng

__all__ = ["ManifoldContract"]


class ManifoldContract(ABC):
    """Laws of ``Manifold``, in float64 unless said otherwise.

    Attributes:
        shape: Shape of one item, several points at once.
        ndim: How many trailing axes make one point.
    """

    shape: tuple[int, ...] = (3, 8)
    ndim: int = 1

    @abstractmethod
    def make(self) -> Manifold:
        """An instance."""

    def oracle(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Geodesic distance in closed form, where one exists."""
        return None

    def far(self, x: Tensor, gap: float) -> tuple[Tensor, Tensor] | None:
        """On a compact manifold: points that lack the distance ``gap`` to the farthest from ``x``, and how far they are."""
        return None

    def points(self, seed: int = 0) -> Tensor:
        """Two items on the manifold."""
        return self.make().project(self._vectors(seed))

    def residual(self, x: Tensor, start: Tensor) -> Tensor:
        """How far each point is from the manifold that ``start`` lies on."""
        return self._length(self.make().project(x) - x)

    def test_projection_lands_and_is_idempotent(self) -> None:
        """The nearest point is on the manifold, and nearest to itself."""
        manifold, x = self.make(), 3 * self._vectors(0) + 1
        once = manifold.project(x)
        close(self.residual(once, once), torch.zeros(self._count(x), dtype=x.dtype), "residual of a projection")
        close(manifold.project(once), once, "second projection")

    def test_tangent_is_an_orthogonal_projection(self) -> None:
        """Idempotent, linear, and what it removes is orthogonal to what it keeps."""
        manifold, x, u, v = self.make(), self.points(), self._vectors(1), self._vectors(2)
        kept = manifold.tangent(x, v)
        close(manifold.tangent(x, kept), kept, "second tangent projection")
        close(manifold.tangent(x, 2 * u - v), 2 * manifold.tangent(x, u) - kept, "tangent projection of a sum")
        inner = self._sum((v - kept) * manifold.tangent(x, u))
        close(inner, torch.zeros_like(inner), "inner product of removed and kept parts")

    def test_tangent_vectors_touch(self) -> None:
        """A tangent step leaves the manifold to second order only."""
        x = self.points()
        v = self._unit(self.make().tangent(x, self._vectors(1)))
        self._second_order(lambda t: self.residual(x + t * v, x), "distance of a tangent step from the manifold")

    def test_retraction_agrees_to_first_order(self) -> None:
        """With the tangent step."""
        manifold, x = self.make(), self.points()
        v = self._unit(manifold.tangent(x, self._vectors(1)))
        self._second_order(lambda t: self._length(manifold.retract(x, t * v) - (x + t * v)), "retraction less tangent step")

    def test_retraction_stays_on(self) -> None:
        """However large the step; and no step, no move."""
        manifold, x, v = self.make(), self.points(), self._vectors(1)
        for size in (0.01, 1.0, 10.0):
            moved = manifold.retract(x, size * v)
            close(self.residual(moved, x), torch.zeros(self._count(x), dtype=x.dtype), f"residual after a step of {size}")
        close(manifold.retract(x, torch.zeros_like(x)), x, "retraction of no step")

    def test_transport_agrees_with_the_geodesic(self) -> None:
        """To second order: point and velocity after a small step are those of the geodesic, its speed the length of ``v``."""
        manifold, x = self.make(), self.points()
        v = self._unit(manifold.tangent(x, self._vectors(1)))
        for t in (1e-2, 1e-3):
            moved, velocity = manifold.transport(x, t * v)
            way = manifold.distance(x, moved)
            close(way / t, torch.ones_like(way), f"distance after a velocity of {t}", t**2)
            close(manifold.geodesic(x, moved, 0.5), manifold.transport(x, t / 2 * v)[0], "half of the way", t**2)
            close(velocity / t, manifold.tangent(moved, v), f"direction after a velocity of {t}", t)

    def test_transport_keeps_lengths_and_leads_back(self) -> None:
        """However far: it stays on the manifold, the velocity stays tangent and as long, and turned round it returns."""
        manifold, x, v = self.make(), self.points(), self._vectors(1)
        for size in (0.1, 1.0, 5.0):
            start = size * manifold.tangent(x, v)
            moved, velocity = manifold.transport(x, start)
            close(self.residual(moved, x), torch.zeros(self._count(x), dtype=x.dtype), f"residual after a velocity of {size}")
            close(manifold.tangent(moved, velocity), velocity, "tangent part of the velocity")
            close(self._length(velocity), self._length(start), "length of the velocity")
            back, reverse = manifold.transport(moved, -velocity)
            close(back, x, "point after going back")
            close(reverse, -start, "velocity after going back")

    def test_distance_is_a_distance(self) -> None:
        """One number per point: 0 from itself, positive, symmetric, never longer by a third point."""
        manifold, x, y, z = self.make(), self.points(0), self.points(1), self.points(2)
        d = manifold.distance(x, y)
        assert d.shape == self._count(x), f"distance: expected shape {tuple(self._count(x))}, got {tuple(d.shape)}"
        assert bool((d > 0).all()), "distance: expected positive numbers between different points"
        close(manifold.distance(x, x), torch.zeros_like(d), "distance from itself")
        close(manifold.distance(y, x), d, "distance the other way")
        assert bool((d <= manifold.distance(x, z) + manifold.distance(z, y) + 1e-9).all()), "distance: triangle inequality"

    def test_distance_is_right_near_zero(self) -> None:
        """In float32, where the arc cosine of a clamped product is not."""
        manifold, x = self.make(), self.points()
        v = self._unit(manifold.tangent(x, self._vectors(1)))
        for size in (1e-1, 1e-2, 1e-3):
            moved = manifold.retract(x, size * v).float()
            got, expected = manifold.distance(x.float(), moved), manifold.distance(x.float().double(), moved.double())
            close(expected / size, torch.ones_like(expected), f"distance after a step of {size}", 1e-2)
            close(got.double() / size, expected / size, f"distance of {size} in float32", 1e-2)

    def test_distance_is_right_at_the_far_end(self) -> None:
        """In float32 too, on a compact manifold."""
        manifold, x = self.make(), self.points()
        for gap in (1e-1, 1e-2, 1e-3):
            pair = self.far(x, gap)
            if pair is not None:
                close(manifold.distance(x, pair[0]), pair[1], f"distance {gap} short of the farthest")
                got = manifold.distance(x.float(), pair[0].float()).double()
                close((pair[1] - got) / gap, torch.zeros_like(got), f"distance {gap} short of the farthest, in float32", 1e-2)

    def test_distance_has_finite_gradients(self) -> None:
        """At 0, near it, and at the far end, in float32."""
        manifold, x = self.make(), self.points().float()
        ends = [self.far(x.double(), gap) for gap in (0.0, 1e-3)]
        for y in (x, x * (1 + 1e-7), self.points(1).float(), *(end[0].float() for end in ends if end is not None)):
            first, second = x.clone().requires_grad_(), y.clone().requires_grad_()
            gradients = torch.autograd.grad(manifold.distance(first, second).sum(), (first, second))
            assert all(bool(gradient.isfinite().all()) for gradient in gradients), "distance: expected finite gradients"

    def test_geodesic_joins_its_ends_at_constant_speed(self) -> None:
        """And stays on the manifold, also between a point and itself."""
        manifold, x, y = self.make(), self.points(0), self.points(1)
        close(manifold.geodesic(x, y, 0.0), x, "geodesic at 0")
        close(manifold.geodesic(x, y, 1.0), y, "geodesic at 1")
        close(manifold.geodesic(x, x, 0.3), x, "geodesic from a point to itself")
        for t in (0.25, 0.5, 0.9):
            point = manifold.geodesic(x, y, t)
            close(self.residual(point, x), torch.zeros(self._count(x), dtype=x.dtype), f"residual of the geodesic at {t}")
            close(manifold.distance(x, point), t * manifold.distance(x, y), f"way travelled at {t}")

    def test_nothing_is_altered(self) -> None:
        """Neither points nor vectors."""
        manifold, x, y, v = self.make(), self.points(0), self.points(1), self._vectors(2)
        before = [tensor.clone() for tensor in (x, y, v)]
        manifold.project(x), manifold.tangent(x, v), manifold.retract(x, v), manifold.transport(x, v)
        manifold.distance(x, y), manifold.geodesic(x, y, 0.5)
        for tensor, copy in zip((x, y, v), before, strict=True):
            equal(tensor, copy, "argument")

    def test_agrees_with_the_oracle(self) -> None:
        """Where a closed form of the distance is given."""
        x, y = self.points(0), self.points(1)
        expected = self.oracle(x, y)
        if expected is not None:
            close(self.make().distance(x, y), expected, "distance")

    def _second_order(self, error: Callable[[float], Tensor], what: str) -> None:
        """Refuse an error that does not fall by about four when the step is halved."""
        for t in (1e-2, 5e-3):
            coarse, fine = error(t), error(t / 2)
            assert bool((coarse <= t).all()), f"{what}: expected less than the step {t}, got {float(coarse.max()):.1e}"
            assert bool((fine <= 0.3 * coarse + 1e-12).all()), f"{what}: expected it to fall with the square of the step"

    def _vectors(self, seed: int) -> Tensor:
        return torch.randn((2, *self.shape), generator=rng(seed), dtype=torch.float64)

    def _count(self, x: Tensor) -> torch.Size:
        return x.shape[: -self.ndim]

    def _sum(self, x: Tensor) -> Tensor:
        return x.sum(tuple(range(-self.ndim, 0)))

    def _length(self, x: Tensor) -> Tensor:
        return self._sum(x.square()).sqrt()

    def _unit(self, v: Tensor) -> Tensor:
        return v / self._length(v).reshape(*self._count(v), *[1] * self.ndim)
