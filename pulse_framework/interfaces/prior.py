"""What a search believes about a latent block before it sees the measurement."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_framework.manifolds import Manifold

__all__ = ["LatentPrior"]


class LatentPrior(nn.Module, ABC):
    """Where realistic latents are: it samples, weighs and names the manifold searched. It knows no network.

    Attributes:
        manifold: Where the block moves; every sample lies on it.
    """

    manifold: Manifold

    @abstractmethod
    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Float[Tensor, "*event"]:
        """Draw one item of the given shape (without N), float32, on the CPU, on the manifold."""

    @abstractmethod
    def energy(self, latent: Float[Tensor, "N *event"]) -> Float[Tensor, " N"]:
        """Negative log-density of each item, up to a constant, in nats."""
