"""What a search needs to know of a forward operator, and the two faces every degradation has."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_framework.latents import LatentBlock, Latents

__all__ = ["Degradation", "LinearDegradation"]


class Degradation(nn.Module, ABC):
    """A forward operator A and the real process that it models.

    Calling the object is A: differentiable, deterministic, noiseless. ``measure`` is what really happened to the photo:
    quantised, noisy, perhaps non-differentiable. Parameters are fixed at construction; calling changes nothing.

    Attributes:
        gap: Largest root mean square difference between ``A(x)`` and ``measure(x)``, in image units, over images whose A(x)
            stays inside [0, 1]. A contract test holds the plug-in to it.
        surrogate: Whether the derivative of A is a stand-in, since A has none that is of use (it rounds).
        blocks: Unknown parameters, as latent blocks that are searched with those of the generator: standard normal numbers, of
            which the operator makes natural values. Most operators have none.
    """

    gap: float = 0.0
    surrogate: bool = False
    blocks: tuple[LatentBlock, ...] = ()

    @abstractmethod
    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Shape of A(x) without N, for images of the given (C, H, W).

        Raises:
            ValueError: The operator cannot take such images.
        """

    def mask(self, image_shape: tuple[int, int, int]) -> Float[Tensor, "1 h w"] | None:
        """Which pixels of a measurement (C, h, w) were observed, 1, and which say nothing, 0; None if all were."""
        del image_shape
        return None

    @abstractmethod
    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N *measurement"]:
        """A(x): images, nominally in [0, 1], to measurements in the same units; row i depends on row i alone."""

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N *measurement"]:
        """The real process, all of its randomness taken from ``rng``. By default it is A itself."""
        del rng
        return self(x)

    def given(self, latents: Latents) -> "Degradation":
        """The operator whose unknown parameters are those of one item, ``blocks`` without N; it has none left."""
        del latents
        return self

    def at(self, x: Float[Tensor, "N C H W"], latents: Latents) -> Float[Tensor, "N *measurement"]:
        """A(x), row i with the unknown parameters in row i of ``latents``, which may hold other blocks too."""
        if not self.blocks or not len(x):
            return self(x)
        rows = []
        for i, image in enumerate(x.split(1)):
            own = {block.name: latents[block.name][i] for block in self.blocks}
            astray = torch.cat(
                [(u - u).flatten() for u in own.values()]
            ).sum()  # NaN if u is not finite: no operator is made of it
            rows.append(self.given(own)(image) if bool(astray == 0) else self(image) + astray)
        return torch.cat(rows)

    def unknowns(self, latents: Latents) -> dict[str, Float[Tensor, "N *value"]]:
        """Unknown parameters by name, in natural units."""
        del latents
        return {}

    def errors(self, latents: Latents) -> dict[str, Float[Tensor, " N"]]:
        """Relative errors of the unknown parameters whose truth is known, for reports alone."""
        del latents
        return {}


class LinearDegradation(Degradation):
    """A linear A, which adds its adjoint."""

    @abstractmethod
    def adjoint(self, y: Float[Tensor, "N *measurement"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """Transpose of A, for images of the given (C, H, W): the inner product of A(x) and y is that of x and the result."""
