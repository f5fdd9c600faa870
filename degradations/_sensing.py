r"""What linear measurements that are no pictures have in common: one image at a time, and white noise of ``sigma``.

Measurements are neither clamped nor rounded. ``gap`` is no sure bound, since noise has none: the root mean square of k standard
normal numbers is about 1 with a standard deviation of :math:`1 / \sqrt{2 k}`, of which four are allowed.
"""

import math
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from degradations._rows import one_by_one
from pulse_framework.interfaces import LinearDegradation

__all__ = ["Sensing", "at_least_single", "whole"]


class Sensing(LinearDegradation):
    """Measures one image at a time, and adds white noise."""

    def __init__(self, sigma: float, count: int) -> None:
        super().__init__()
        if not 0 <= sigma < math.inf:
            raise ValueError(f"{self._name} sigma: expected a finite number of at least 0, got {sigma}; 0 is no noise")
        self.sigma = sigma
        self.gap = sigma * (1 + 4 / math.sqrt(2 * count))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N *measurement"]:
        """A(x), in the dtype and on the device of x.

        Raises:
            TypeError: The images are no floats.
            ValueError: The operator cannot take such images.
        """
        image_shape = (x.shape[1], x.shape[2], x.shape[3])
        self.measurement_shape(image_shape)
        self._check_floats(x)
        return one_by_one(lambda image: self._project(image[0])[None], x)

    def adjoint(self, y: Float[Tensor, "N *measurement"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """Transpose of A.

        Raises:
            TypeError: The measurements are no floats.
            ValueError: ``y`` is not of the measurement shape of such images.
        """
        expected = tuple(self.measurement_shape(image_shape))
        if tuple(y.shape[1:]) != expected:
            raise ValueError(
                f"{self._name} adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape"
            )
        self._check_floats(y)
        return one_by_one(lambda row: self._backproject(row[0], image_shape)[None], y)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N *measurement"]:
        """A(x) and noise, drawn on the device of ``rng``; nothing is drawn without noise."""
        y = self(x)
        if not self.sigma:
            return y
        return y + self.sigma * torch.randn(y.shape, generator=rng, dtype=y.dtype, device=rng.device).to(y.device)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_floats(self, values: Tensor) -> None:
        if not values.is_floating_point():
            raise TypeError(f"{self._name}: expected a tensor of floats, got {values.dtype}; convert it, images to [0, 1]")

    @abstractmethod
    def _project(self, image: Tensor) -> Tensor:
        """A of one image (C, H, W)."""

    @abstractmethod
    def _backproject(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        """Transpose of A of one measurement."""


def whole(where: type, name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{where.__name__} {name}: expected an integer of at least {least}, got {value!r}; correct it")
    return value


def at_least_single(like: Tensor) -> torch.dtype:
    """Fourier transforms need that much."""
    return torch.promote_types(like.dtype, torch.float32)
