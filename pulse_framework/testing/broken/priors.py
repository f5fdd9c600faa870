"""Priors that break one law each."""

import torch
from torch import Tensor

from pulse_framework.priors import GaussianPrior, SpherePrior

__all__ = [
    "BatchEnergy",
    "FixedSample",
    "GlobalSample",
    "MemorisingEnergy",
    "OffCentre",
    "OffManifold",
    "RootSlope",
    "SteeperEnergy",
]


class OffManifold(SpherePrior):
    """Draws Gaussian latents but names a sphere."""

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Near the sphere, not on it."""
        return torch.randn(shape, generator=rng)


class GlobalSample(GaussianPrior):
    """Draws from the global stream."""

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Unseeded."""
        return torch.randn(shape)


class FixedSample(GaussianPrior):
    """Starts a stream of its own."""

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Always the same."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class OffCentre(GaussianPrior):
    """Has a mean."""

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Moved by a fifth."""
        return super().sample(shape, rng) + 0.2


class BatchEnergy(GaussianPrior):
    """Averages over the batch."""

    def energy(self, latent: Tensor) -> Tensor:
        """The same number for every item."""
        return super().energy(latent).mean().expand(len(latent))


class RootSlope(GaussianPrior):
    """Has an infinite gradient."""

    def energy(self, latent: Tensor) -> Tensor:
        """The right number."""
        return super().energy(latent) + (0 * latent).flatten(1).sum(1).abs().sqrt()


class MemorisingEnergy(GaussianPrior):
    """Remembers what it saw."""

    seen = 0

    def energy(self, latent: Tensor) -> Tensor:
        """The right number."""
        self.seen += len(latent)
        return super().energy(latent)


class SteeperEnergy(GaussianPrior):
    """Forgets the half."""

    def energy(self, latent: Tensor) -> Tensor:
        """Twice the right number."""
        return 2 * super().energy(latent)
