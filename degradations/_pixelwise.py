"""What operators share that act on each pixel by itself."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation

__all__ = ["HALF_LEVEL", "check_adjoint", "luma_shape", "numbers", "saved"]

HALF_LEVEL = 0.5 / 255
"""Half of an 8-bit level, in image units."""


def saved(y: Tensor) -> Tensor:
    """Clamped to [0, 1] and rounded to 8 bits, as it is in a file."""
    return (y.clamp(0, 1) * 255).round() / 255


def luma_shape(operator: Degradation, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(1, H, W) of RGB images.

    Raises:
        ValueError: The images are not RGB.
    """
    channels, height, width = image_shape
    if channels != 3:
        raise ValueError(f"{type(operator).__name__}: expected RGB images, of 3 channels, got {channels}; use a colour generator")
    return 1, height, width


def check_adjoint(operator: Degradation, y: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Refuse a y that is no measurement of such images.

    Raises:
        ValueError: It is of another shape, or there are no such measurements.
    """
    expected = operator.measurement_shape(image_shape)
    if tuple(y.shape[1:]) != tuple(expected):
        name = type(operator).__name__
        raise ValueError(f"{name} adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape")


def numbers(where: str, value: float | Sequence[float] | Tensor, above: float = -math.inf) -> Tensor:
    """A parameter as a vector of one or more numbers; a tensor of shape () or (C,) keeps its graph, dtype and device.

    Raises:
        TypeError: It is none of these.
        ValueError: A number is not finite, or not above a limit.
    """
    if isinstance(value, Tensor):
        if value.ndim > 1 or not value.is_floating_point() or not value.numel():
            got = f"{value.dtype} of shape {tuple(value.shape)}"
            raise TypeError(f"{where}: expected a float tensor of shape () or (C,), got {got}; convert it")
        vector = value.reshape(-1)
    else:
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not items or any(isinstance(item, bool) or not isinstance(item, int | float) for item in items):
            raise TypeError(f"{where}: expected a number, numbers or a tensor, got {value!r}; correct it")
        vector = torch.tensor(items, dtype=torch.float64)
    if not all(above < number < math.inf for number in vector.tolist()):
        kind = "finite numbers" if above == -math.inf else f"finite numbers above {above:g}"
        raise ValueError(f"{where}: expected {kind}, got {vector.tolist()}; change them")
    return vector
