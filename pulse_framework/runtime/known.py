"""Known pixels: where a mask says that a pixel was observed, a picture can keep it."""

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation

__all__ = ["EXACT", "known_pixels", "with_known_pixels"]

EXACT = 1 / 255
"""Largest gap, in image units, of a measurement whose pixels are the image's: a level of 8 bits."""


def known_pixels(operator: Degradation, image_shape: tuple[int, int, int], keep: bool | None) -> Tensor | None:
    """The mask of the pixels that may be kept, of shape (1, H, W); None if there are none.

    Args:
        operator: A.
        image_shape: (C, H, W) of the images.
        keep: Whether they are kept. None: if the measurement is exact, see ``EXACT``.
    """
    if keep is False or tuple(operator.measurement_shape(image_shape)) != tuple(image_shape):
        return None
    return operator.mask(image_shape) if keep or operator.gap <= EXACT else None


def with_known_pixels(image: Tensor, y: Tensor, degraded: Tensor, mask: Tensor | None, keep: bool | None) -> Tensor:
    """The image, with the measurement's pixels where they were observed.

    Args:
        image: An answer x, of shape (C, H, W).
        y: The measurement.
        degraded: A(x).
        mask: What ``known_pixels`` gives.
        keep: As there. None: if A(x) shows the observed pixels as they are in x, that is, A does nothing else than hide.
    """
    if mask is None:
        return image
    observed = mask.to(image)
    if keep is None and not torch.equal(degraded, observed * image):
        return image
    return torch.where(observed > 0, y.to(image), image)
