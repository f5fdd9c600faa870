r"""Priors on flat space.

Gaussian: :math:`-\log p(z) = \|z\|^2 / 2 + const`, CSGM's regulariser (Bora et al., ICML 2017, section 2.2). Flat: starts are
Gaussian, but no latent is preferred to another during the search.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import LatentPrior
from pulse_framework.manifolds import Euclidean

__all__ = ["FlatPrior", "GaussianPrior"]


class GaussianPrior(LatentPrior):
    """Independent standard normal entries."""

    manifold = Euclidean()

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Float[Tensor, "*event"]:
        """Draw one item."""
        return torch.randn(shape, generator=rng)

    def energy(self, latent: Float[Tensor, "N *event"]) -> Float[Tensor, " N"]:
        """Half the squared length of each item."""
        return latent.flatten(1).square().sum(1) / 2


class FlatPrior(GaussianPrior):
    """Gaussian starts and no preference afterwards.

    Args:
        mean: Of every entry, where searches begin.
        std: Standard deviation of it; 0 begins at the mean.

    Raises:
        ValueError: The standard deviation is negative.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        if not std >= 0:
            raise ValueError(f"FlatPrior std: expected at least 0, got {std}")
        self.mean, self.std = mean, std

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Float[Tensor, "*event"]:
        """Draw one item."""
        return self.mean + self.std * super().sample(shape, rng)

    def energy(self, latent: Float[Tensor, "N *event"]) -> Float[Tensor, " N"]:
        """Zero everywhere."""
        return latent.new_zeros(len(latent))
