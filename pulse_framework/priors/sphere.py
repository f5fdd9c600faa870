r"""The sphere: a Gaussian in :math:`R^d` lives at radius :math:`\sqrt d` (PULSE, Menon et al., CVPR 2020, section 3.3)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import LatentPrior
from pulse_framework.manifolds import Sphere

__all__ = ["SpherePrior"]


class SpherePrior(LatentPrior):
    """Uniform on the sphere, so the energy is constant and the constraint does all the work.

    Args:
        radius: ``"sqrt_dim"``, ``"initial"`` (the radius of the draw, as the original program does) or a length.
        ndim: How many trailing axes make one point: 1 for vectors, 2 for noise maps.
        centred: Whether the mean of every point is 0 besides, as that of the noise maps of StyleGAN2's projector.
    """

    def __init__(
        self, radius: float | Literal["sqrt_dim", "initial"] = "sqrt_dim", ndim: int = 1, *, centred: bool = False
    ) -> None:
        super().__init__()
        self.manifold = Sphere(radius, ndim, centred)

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Float[Tensor, "*event"]:
        """Draw one item: a Gaussian, projected."""
        return self.manifold.project(torch.randn(shape, generator=rng))

    def energy(self, latent: Float[Tensor, "N *event"]) -> Float[Tensor, " N"]:
        """Zero: all points of the sphere are equally likely."""
        return latent.new_zeros(len(latent))
