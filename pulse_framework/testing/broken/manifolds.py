"""Manifolds that break one law each."""

import math

import torch
from torch import Tensor

from pulse_framework.manifolds import Sphere

__all__ = [
    "AmbientGeodesic",
    "AmbientTangent",
    "ArcCosine",
    "BareArcCosine",
    "ChordDistance",
    "DoubleStep",
    "HalfTangent",
    "InPlaceStep",
    "LooseStep",
    "SelfishDistance",
    "StraightWay",
    "UnscaledProjection",
    "UntransportedVelocity",
]


class UnscaledProjection(Sphere):
    """Projects to half of the way."""

    def project(self, x: Tensor) -> Tensor:
        """Nearer to the sphere."""
        return (x + super().project(x)) / 2


class HalfTangent(Sphere):
    """Removes half of the radial part."""

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Not idempotent."""
        return (v + super().tangent(x, v)) / 2


class AmbientTangent(Sphere):
    """Calls every vector tangent."""

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """As it came."""
        return v


class DoubleStep(Sphere):
    """Steps twice as far."""

    def retract(self, x: Tensor, v: Tensor) -> Tensor:
        """On the sphere, but elsewhere."""
        return super().retract(x, 2 * v)


class StraightWay(Sphere):
    """Leaves along the chord, with a velocity made tangent: right to first order, but there is no way back."""

    def transport(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Retraction and projection."""
        moved = self.retract(x, v)
        return moved, self.tangent(moved, v)


class UntransportedVelocity(Sphere):
    """Arrives with the velocity it left with."""

    def transport(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Right in flat space."""
        return super().transport(x, v)[0], 2 * v


class LooseStep(Sphere):
    """Leaves the sphere."""

    def retract(self, x: Tensor, v: Tensor) -> Tensor:
        """The sum alone."""
        return x + v


class SelfishDistance(Sphere):
    """Measures in units of the second point's first entry."""

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Not symmetric."""
        return super().distance(x, y) * (1 + y[..., 0].abs())


class ArcCosine(Sphere):
    """Takes the arc cosine of a clamped product: a floor near zero and no gradient."""

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Right in the middle only."""
        cosine = torch.nn.functional.cosine_similarity(x, y, dim=-1).clamp(-1 + 1e-7, 1 - 1e-7)
        return torch.acos(cosine) * math.sqrt(x.shape[-1])


class BareArcCosine(Sphere):
    """Takes the arc cosine of a product: an infinite gradient at its ends."""

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Right where there is no gradient."""
        return torch.acos((x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))) * math.sqrt(x.shape[-1])


class ChordDistance(Sphere):
    """Measures through the ball."""

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The chord."""
        return (x - y).norm(dim=-1)


class AmbientGeodesic(Sphere):
    """Goes along the chord, back on the sphere, at a speed that varies."""

    def geodesic(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """A projected straight line."""
        return self.project(torch.lerp(x, y, t))


class InPlaceStep(Sphere):
    """Steps in place."""

    def retract(self, x: Tensor, v: Tensor) -> Tensor:
        """Right, but the caller's point has moved too."""
        radius = self._radius(x)
        moved = x.add_(v)
        return moved * (radius / moved.norm(dim=-1, keepdim=True))
