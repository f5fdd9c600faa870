"""Where a latent moves: projection, tangent vectors, retraction, distance and geodesics.

Points and vectors have shape (N, *event); the last ``ndim`` axes belong to the manifold and the others run over separate
points, so a ``w_plus`` of shape (L, D) on ``Sphere()`` moves on L spheres at once, as PULSE's does.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Euclidean", "Manifold", "Sphere"]


class Manifold(ABC):
    """The geometry of one latent block. An optimiser speaks to this and to nothing else."""

    @abstractmethod
    def project(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """Nearest point of the manifold."""

    @abstractmethod
    def tangent(self, x: Float[Tensor, "*event"], v: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """Orthogonal projection of an ambient vector onto the tangent space at ``x``."""

    @abstractmethod
    def retract(self, x: Float[Tensor, "*event"], v: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """The point reached from ``x`` by the step ``v``; agrees with the geodesic to first order for tangent ``v``."""

    @abstractmethod
    def transport(
        self, x: Float[Tensor, "*event"], v: Float[Tensor, "*event"]
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*event"]]:
        """Where a curve that leaves ``x`` with the tangent velocity ``v`` is after one unit of time, and its velocity there.

        The curve is a geodesic up to its speed, which agrees with the length of ``v`` to second order. The map of point and
        velocity keeps lengths and volumes, and run from where it came to, with the velocity turned round, it leads back.
        """

    @abstractmethod
    def distance(self, x: Float[Tensor, "*event"], y: Float[Tensor, "*event"]) -> Float[Tensor, "*points"]:
        """Geodesic distance in latent units, one number per point."""

    @abstractmethod
    def geodesic(self, x: Float[Tensor, "*event"], y: Float[Tensor, "*event"], t: float) -> Float[Tensor, "*event"]:
        """The point at the fraction ``t`` in [0, 1] of the shortest way from ``x`` to ``y``."""


@dataclass(frozen=True)
class Euclidean(Manifold):
    """Flat space: every step is allowed."""

    ndim: int = 1

    def project(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """Every point is on it."""
        return x

    def tangent(self, x: Float[Tensor, "*event"], v: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """Every vector is tangent."""
        return v

    def retract(self, x: Float[Tensor, "*event"], v: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """The sum ``x + v``."""
        return x + v

    def transport(
        self, x: Float[Tensor, "*event"], v: Float[Tensor, "*event"]
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*event"]]:
        """The sum, and the same velocity."""
        return x + v, v

    def distance(self, x: Float[Tensor, "*event"], y: Float[Tensor, "*event"]) -> Float[Tensor, "*points"]:
        """Length of the difference."""
        return _norm(x - y, self.ndim).flatten(-self.ndim).squeeze(-1)

    def geodesic(self, x: Float[Tensor, "*event"], y: Float[Tensor, "*event"], t: float) -> Float[Tensor, "*event"]:
        """The straight line."""
        return torch.lerp(x, y, t)


@dataclass(frozen=True)
class Sphere(Manifold):
    r"""The sphere of radius r around the origin; a high-dimensional Gaussian lives near :math:`r = \sqrt d`.

    The retraction rescales the sum: :math:`R_x(v) = r (x + v) / \|x + v\|` (PULSE, section 3.3). Angles are
    :math:`\theta = 2 \arctan_2(\|u - v\|, \|u + v\|)` of unit vectors, right at 0 and near :math:`\pi` alike.

    Attributes:
        radius: A length in latent units, ``"sqrt_dim"`` for the root of the number of entries of a point, or
            ``"initial"``: every point stays at the radius it has, as in the original PULSE (the radius of the draw).
        ndim: How many trailing axes make one point: 1 for vectors, 2 for noise maps.
        centred: Whether points have mean 0 besides: noise maps of mean 0 and mean square 1, as StyleGAN2's projector keeps them.
    """

    radius: float | Literal["sqrt_dim", "initial"] = "sqrt_dim"
    ndim: int = 1
    centred: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.radius, str):
            if self.radius not in ("sqrt_dim", "initial"):
                raise ValueError(f"Sphere radius: expected 'sqrt_dim', 'initial' or a length, got {self.radius!r}")
        elif not 0 < self.radius < math.inf:
            raise ValueError(f"Sphere radius: expected a positive length, got {self.radius}")

    def project(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """Rescale to the radius; under ``"initial"`` every point is already on its own sphere."""
        x = self._centre(x)
        return x if self.radius == "initial" else x * (self._radius(x) / _norm(x, self.ndim))

    def tangent(self, x: Float[Tensor, "*event"], v: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """Remove the radial part of ``v``."""
        axes, v = tuple(range(-self.ndim, 0)), self._centre(v)
        radial = (x * v).sum(axes, keepdim=True) / x.square().sum(axes, keepdim=True)
        return v - radial * x

    def retract(self, x: Float[Tensor, "*event"], v: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """Add the step, then rescale to the radius."""
        moved = self._centre(x + v)
        return moved * (self._radius(x) / _norm(moved, self.ndim))

    def transport(
        self, x: Float[Tensor, "*event"], v: Float[Tensor, "*event"]
    ) -> tuple[Float[Tensor, "*event"], Float[Tensor, "*event"]]:
        r"""A great circle, by the angle :math:`2 \arctan(\|v\| / 2 r)`, whose sine and cosine are fractions.

        So it is exact arithmetic but for rounding, the same however many points there are.
        """
        square = v.square().sum(tuple(range(-self.ndim, 0)), keepdim=True) / (4 * self._radius(x).square())
        moved = ((1 - square) * x + v) / (1 + square)
        return moved * (self._radius(x) / _norm(moved, self.ndim)), ((1 - square) * v - 4 * square * x) / (1 + square)

    def distance(self, x: Float[Tensor, "*event"], y: Float[Tensor, "*event"]) -> Float[Tensor, "*points"]:
        """Arc length: the angle times the radius of ``x``."""
        return (self._angle(x, y) * self._radius(x)).flatten(-self.ndim).squeeze(-1)

    def geodesic(self, x: Float[Tensor, "*event"], y: Float[Tensor, "*event"], t: float) -> Float[Tensor, "*event"]:
        """The great circle from ``x`` to ``y``; under ``"initial"`` the radius goes linearly from one to the other.

        Raises:
            ValueError: The points are opposite, so that no shortest way exists.
        """
        theta = self._angle(x, y)
        sine = torch.sin(theta)
        if bool((sine.abs() < 1e-6).logical_and(theta > 1).any()):
            raise ValueError("Sphere geodesic: expected two points with one shortest way, got opposite ones; go through a third")
        near = theta < 1e-6
        safe = torch.where(near, torch.ones_like(sine), sine)
        first = torch.where(near, torch.full_like(theta, 1 - t), torch.sin((1 - t) * theta) / safe)
        second = torch.where(near, torch.full_like(theta, t), torch.sin(t * theta) / safe)
        unit = first * x / _norm(x, self.ndim) + second * y / _norm(y, self.ndim)
        return unit * torch.lerp(self._radius(x), self._radius(y), t)

    def _centre(self, x: Tensor) -> Tensor:
        return x - x.mean(tuple(range(-self.ndim, 0)), keepdim=True) if self.centred else x

    def _radius(self, x: Tensor) -> Tensor:
        """Radius of the sphere each point is on, with singleton manifold axes."""
        if self.radius == "initial":
            return _norm(x, self.ndim)
        size = math.prod(x.shape[-self.ndim :])
        return x.new_full((1,) * x.ndim, math.sqrt(size) if self.radius == "sqrt_dim" else float(self.radius))

    def _angle(self, x: Tensor, y: Tensor) -> Tensor:
        u, v = x / _norm(x, self.ndim), y / _norm(y, self.ndim)
        return 2 * torch.atan2(_norm(u - v, self.ndim), _norm(u + v, self.ndim))


def _norm(x: Tensor, ndim: int) -> Tensor:
    """Euclidean length over the trailing axes, kept as singletons; its gradient at 0 is 0."""
    return torch.linalg.vector_norm(x, dim=tuple(range(-ndim, 0)), keepdim=True)
