"""The identity, A(x) = x: with it a search is plain inversion, the latent of a complete and undegraded image."""

from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import LinearDegradation

__all__ = ["Identity"]


class Identity(LinearDegradation):
    """The measurement is the image, (C, H, W), in the same units; nothing is rounded, so ``gap`` is 0."""

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """The images themselves."""
        return x

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """``y`` itself.

        Raises:
            ValueError: ``y`` is not of this image shape.
        """
        if tuple(y.shape[1:]) != tuple(image_shape):
            raise ValueError(f"Identity adjoint: expected y of shape (N, *{image_shape}), got {tuple(y.shape)}")
        return y
